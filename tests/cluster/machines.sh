# shellcheck shell=bash
# Sourced by up.sh: networks, cgroups and start of the machines.
# Nodes reach each other through one bridge, which lives in the control plane's network namespace. The root namespace gets a
# single veth, by which this machine reaches nodes, pods' NodePorts and the API server; no rule and no route of its own.

CONTROL=$NAME-control-plane
in_ns() { ip netns exec "$1" "${@:2}"; }

make_lan() {
  [ ! -e "/run/netns/$CONTROL" ] || return 0
  ip netns add "$CONTROL"
  ip -n "$CONTROL" link set lo up
  ip -n "$CONTROL" link add lan type bridge
  ip -n "$CONTROL" addr add "$NET.1/24" dev lan
  ip -n "$CONTROL" link set lan up
  in_ns "$CONTROL" sysctl -qw net.ipv4.ip_forward=1
  # where br_netfilter is loaded, the bridge must not send the nodes' frames through the rules of this namespace
  in_ns "$CONTROL" sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true
  ip link add "$NAME-up" type veth peer name "$NAME-up" netns "$CONTROL"
  ip -n "$CONTROL" link set "$NAME-up" master lan up
  ip addr add "$NET.254/24" dev "$NAME-up"
  ip link set "$NAME-up" up
}

make_node_network() { # index: a fresh namespace, as after a reboot
  local i=$1 ns=$NAME-node$1 port=$NAME-node$1 j
  if [ -e "/run/netns/$ns" ]; then ip netns del "$ns"; fi
  # the kernel removes a dead namespace's interfaces a little later
  for _ in $(seq 100); do ip -n "$CONTROL" link show "$port" >/dev/null 2>&1 || break; sleep 0.1; done
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  ip link add "$port" netns "$CONTROL" type veth peer name eth0 netns "$ns"
  ip -n "$CONTROL" link set "$port" master lan up
  ip -n "$ns" addr add "$NET.$((10 + i))/24" dev eth0
  ip -n "$ns" link set eth0 up
  in_ns "$ns" sysctl -qw net.ipv4.ip_forward=1
  ip -n "$ns" route add default via "$NET.1"
  # routes to all nodes that may ever join, so that one added later needs no change to the others
  for j in $(seq $MAX_NODES); do [ "$i" = "$j" ] || ip -n "$ns" route add "$PODS.$j.0/24" via "$NET.$((10 + j))"; done
  ip -n "$CONTROL" route replace "$PODS.$i.0/24" via "$NET.$((10 + i))"
}

make_config() { # index
  local i=$1 conf=$STATE/node$1/conf file
  mkdir -p "$conf"
  for file in containerd.toml kubelet.yaml kube-proxy.yaml pods.conflist; do
    sed "s/@NODE@/node$i/g; s/@INDEX@/$i/g; s/@PODS@/$PODS/g; s/@SVC@/$SVC/g" "$HERE/config/$file" >"$conf/$file"
  done
}

# Version 2: hands the controllers down to the children. One by one, because a kernel may lack one that nobody needs.
delegate() { # cgroup
  local controller
  version_2 || return 0
  for controller in $(cat "$1/cgroup.controllers"); do
    echo "+$controller" 2>/dev/null >"$1/cgroup.subtree_control" || true
  done
  for controller in cpu cpuset memory pids; do
    grep -qw "$controller" "$1/cgroup.subtree_control" || {
      echo "cannot hand the cgroup controller $controller down from $1 (in a container? its own processes must leave that cgroup)" >&2
      return 1
    }
  done
}

# Version 1: a new cpuset has no cores and takes no process until it is given some.
give_cores() { # cgroup
  local file
  if version_2 || [ ! -f "$1/cpuset.cpus" ]; then return 0; fi
  for file in cpuset.cpus cpuset.mems; do cat "$1/../$file" >"$1/$file"; done
}

make_machine_cgroups() { # machine: empty, as after a reboot; the kubelet would look for what old ones held
  local h
  for h in $(hierarchies); do
    find "$h/$NAME/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
    mkdir -p "$h/$NAME"
    give_cores "$h/$NAME"
    delegate "$h"
    delegate "$h/$NAME"
    mkdir -p "$h/$NAME/$1"
    give_cores "$h/$NAME/$1"
    # Version 2: a cgroup with children may hold no processes, so the machine's own live in a child of it.
    if version_2; then mkdir -p "$h/$NAME/$1/init"; fi
  done
}

# Runs as the process that up.sh records. It makes the machine's cgroups the root of its view before it moves on to the
# child, and becomes `unshare`, whose death is the machine's.
# shellcheck disable=SC2016 # expanded by the shell that runs it
LAUNCH='set -e
machine=$1 index=$2 init=$3
shift 3
for h; do echo $$ >"$h/$NAME/$machine/cgroup.procs"; done
exec unshare --cgroup bash -ec '\''
  machine=$1 index=$2 init=$3
  shift 3
  for h; do [ ! -d "$h/$NAME/$machine/init" ] || echo $$ >"$h/$NAME/$machine/init/cgroup.procs"; done
  exec nsenter --net="/run/netns/$NAME-$machine" unshare --mount --pid --uts --ipc --fork --kill-child "$init" "$machine" "$index"
'\'' - "$machine" "$index" "$init" "$@"'

# Powers a machine on, unless it runs. What lies in its /var survives.
power_on() { # machine index
  local machine=$1 i=$2 dir=$STATE/$1 all
  if alive "$machine"; then return; fi
  mkdir -p "$dir"
  make_machine_cgroups "$machine"
  if [ "$i" -gt 0 ]; then
    make_config "$i"
    make_node_network "$i"
  fi
  mapfile -t all < <(hierarchies)
  export NAME NODES STATE BIN IMAGES NET PODS SVC
  setsid bash -c "$LAUNCH" - "$machine" "$i" "$HERE/machine-init.sh" "${all[@]}" >"$dir/init.log" 2>&1 9>&- </dev/null &
  echo $! >"$dir/pid"
  # until it has become `unshare`, it cannot be told from a dead one
  for _ in $(seq 100); do ! alive "$machine" || return 0; sleep 0.05; done
  echo "cluster: $machine did not start" >&2
  blame "$machine"
  return 1
}
