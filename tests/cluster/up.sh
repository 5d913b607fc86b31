#!/usr/bin/env bash
# Brings the cluster up; does nothing where it is up. All of it lives in network namespaces $NAME-control-plane and
# $NAME-node<i>; the only thing in the root namespace is one veth, $NAME-up, by which this machine reaches the nodes.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: using that cluster ($KUBECONFIG), none is started"
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "the embedded cluster needs root (or set KUBECONFIG to a cluster of yours)" >&2; exit 1; }
"$HERE/install-deps.sh"
"$HERE/build.sh"

mkdir -p "$STATE"
exec 9>"$STATE/lock"
flock 9
began=$(date +%s%N)
say() { printf 'cluster %5.1f s  %s\n' "$(bc_seconds)" "$*"; }
bc_seconds() { awk -v ns=$(($(date +%s%N) - began)) 'BEGIN { print ns / 1e9 }'; }

CONTROL=$NAME-control-plane
in_ns() { ip netns exec "$1" "${@:2}"; }

# Shows the end of a component's log, so that a failure names its cause.
blame() { # machine component...
  local machine=$1 component log
  shift
  for component; do
    log=$STATE/$machine/var/log/k8s/$component.log
    echo "--- $machine: end of $component.log" >&2
    tail -n 12 "$log" >&2 2>/dev/null || echo "(no such log: it was never started)" >&2
  done
  [ ! -s "$STATE/$machine/init.log" ] || { echo "--- $machine: init.log" >&2; tail -n 12 "$STATE/$machine/init.log" >&2; }
}

# wait_for <seconds> <what> <command...>: false when it never came true
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2 last=''
  shift 2
  until last=$("$@" 2>&1); do
    if [ $SECONDS -ge $deadline ]; then
      echo "cluster: TIMEOUT waiting for $what; last: $last" >&2
      return 1
    fi
    sleep 0.2
  done
  say "$what"
}

make_lan() { # one bridge in the control plane's namespace is the nodes' network
  [ ! -e "/run/netns/$CONTROL" ] || return 0
  ip netns add "$CONTROL"
  ip -n "$CONTROL" link set lo up
  ip -n "$CONTROL" link add lan type bridge
  ip -n "$CONTROL" addr add "$NET.1/24" dev lan
  ip -n "$CONTROL" link set lan up
  in_ns "$CONTROL" sysctl -qw net.ipv4.ip_forward=1
  in_ns "$CONTROL" sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true
  ip link add "$NAME-up" type veth peer name "$NAME-up" netns "$CONTROL"
  ip -n "$CONTROL" link set "$NAME-up" master lan up
  ip addr add "$NET.254/24" dev "$NAME-up"
  ip link set "$NAME-up" up
}

make_node_network() { # index: a fresh namespace, as after a reboot
  local i=$1 ns=$NAME-node$1 port=$NAME-node$1 j
  [ ! -e "/run/netns/$ns" ] || ip netns del "$ns"
  for _ in $(seq 50); do ip -n "$CONTROL" link show "$port" >/dev/null 2>&1 || break; sleep 0.1; done
  ip netns add "$ns"
  ip -n "$ns" link set lo up
  ip link add "$port" netns "$CONTROL" type veth peer name eth0 netns "$ns"
  ip -n "$CONTROL" link set "$port" master lan up
  ip -n "$ns" addr add "$NET.$((10 + i))/24" dev eth0
  ip -n "$ns" link set eth0 up
  in_ns "$ns" sysctl -qw net.ipv4.ip_forward=1
  ip -n "$ns" route add default via "$NET.1"
  # Routes to all nodes that may ever join, so that a node added later needs no change to the others.
  for j in $(seq 9); do [ "$i" = "$j" ] || ip -n "$ns" route add "$PODS.$j.0/24" via "$NET.$((10 + j))"; done
  ip -n "$CONTROL" route replace "$PODS.$i.0/24" via "$NET.$((10 + i))"
}

make_config() { # index
  local i=$1 conf=$STATE/node$1/conf file
  mkdir -p "$conf"
  for file in containerd.toml kubelet.yaml kube-proxy.yaml pods.conflist; do
    sed "s/@NODE@/node$i/g; s/@INDEX@/$i/g; s/@PODS@/$PODS/g; s/@SVC@/$SVC/g" "$HERE/config/$file" >"$conf/$file"
  done
}

hierarchies() {
  if [ -f $CG/cgroup.controllers ]; then echo $CG; else for c in $CG/*; do ! mountpoint -q "$c" || echo "$c"; done; fi
}
delegate() { # cgroup v2: hand every controller down
  [ ! -f "$1/cgroup.subtree_control" ] || [ ! -f $CG/cgroup.controllers ] || sed 's/[^ ]*/+&/g' "$1/cgroup.controllers" >"$1/cgroup.subtree_control"
}
cpuset() { # cgroup v1: a new cpuset is empty and takes no process until it has cores
  local f
  if [ -f "$1/cpuset.cpus" ] && [ ! -f $CG/cgroup.controllers ]; then for f in cpuset.cpus cpuset.mems; do cat "$1/../$f" >"$1/$f"; done; fi
}

alive() { # pid file; kill -0 would also accept a zombie
  [ -f "$1" ] && case $(readlink "/proc/$(cat "$1")/exe" || true) in */unshare) ;; *) false ;; esac
}

machine() { # name index: power on, unless it runs. Its /var survives
  local name=$1 i=$2 dir=$STATE/$1 h
  mkdir -p "$dir"
  if alive "$dir/pid"; then return; fi
  for h in $(hierarchies); do
    find "$h/$NAME/$name" -depth -type d -exec rmdir {} + 2>/dev/null || true
    mkdir -p "$h/$NAME"
    cpuset "$h/$NAME"
    delegate "$h"
    delegate "$h/$NAME"
    mkdir -p "$h/$NAME/$name"
    cpuset "$h/$NAME/$name"
  done
  if [ "$i" -gt 0 ]; then
    make_config "$i"
    make_node_network "$i"
  fi
  export NAME NODES STATE BIN IMAGES NET PODS SVC
  # shellcheck disable=SC2016 # expanded by the inner shell
  setsid bash -c 'init=$1 name=$2 i=$3; shift 3
    for h; do echo $$ >"$h/$NAME/$name/cgroup.procs"; done
    exec nsenter --net="/run/netns/$NAME-$name" unshare --cgroup --mount --pid --uts --ipc --fork --kill-child "$init" "$name" "$i"' \
    - "$HERE/machine-init.sh" "$name" "$i" $(hierarchies) >"$dir/init.log" 2>&1 9>&- </dev/null &
  echo $! >"$dir/pid"
}

"$HERE/pki.sh"
sed "s/@NET@/$NET/g" "$HERE/config/upstream.corefile" >"$STATE/upstream.corefile"
make_lan
machine control-plane 0
for i in $(seq "$NODES"); do machine "node$i" "$i"; done
say "machines started"

cp "$PKI/admin.kubeconfig" "$STATE/kubeconfig"
k() { "$BIN/kubectl" --kubeconfig "$STATE/kubeconfig" "$@"; }
wait_for 100 "API server ready" k get --raw /readyz || { blame control-plane etcd kube-apiserver; exit 1; }
sed "s/@DNS@/$SVC.0.10/" "$HERE/manifests/system.yaml" | "$HERE/apply-once.sh" "$STATE/kubeconfig" >/dev/null
nodes_there() { for i in $(seq "$NODES"); do k get node "node$i" -o name || return 1; done; }
wait_for 60 "nodes registered" nodes_there || { for i in $(seq "$NODES"); do blame "node$i" containerd kubelet; done; exit 1; }
for i in $(seq "$NODES"); do
  k patch node "node$i" -p "{\"spec\":{\"podCIDR\":\"$PODS.$i.0/24\",\"podCIDRs\":[\"$PODS.$i.0/24\"]}}" >/dev/null
done
wait_for 70 "all nodes Ready" k wait --for=condition=Ready nodes --all --timeout=2s || { for i in $(seq "$NODES"); do blame "node$i" containerd kubelet kube-proxy; done; exit 1; }
wait_for 100 "CoreDNS ready" k -n kube-system rollout status deployment/coredns --timeout=2s || {
  k -n kube-system describe pods -l k8s-app=kube-dns | tail -n 30 >&2
  blame control-plane kube-scheduler kube-controller-manager
  blame node1 containerd kubelet
  exit 1
}
