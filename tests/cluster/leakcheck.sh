#!/usr/bin/env bash
# Brings a cluster of its own up and down and compares this machine before and after: nothing may be left. Other clusters may
# run meanwhile.
set -euo pipefail
unset KUBECONFIG
export NAME=leak NET=172.29.9
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"

# What the cluster's daemons would write for the whole machine, were they not kept from it.
sysctls=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
  kernel.keys.root_maxbytes net.ipv4.ip_forward net.ipv4.ip_unprivileged_port_start net.ipv4.conf.all.route_localnet)

picture() {
  ip -o link | awk -F': ' '{ print "link " $2 }' | sort
  ip -o address | awk '{ print "address " $2, $4 }' | sort
  ip route show table all | sed 's/^/route /' | sort
  ip netns | awk '{ print "namespace " $1 }' | sort
  sed 's/^/mount /' /proc/mounts | sort
  echo "rules $(nft list ruleset | sha256sum)"
  for key in "${sysctls[@]}"; do echo "sysctl $(sysctl "$key")"; done
  for h in $(hierarchies); do find "$h" -type d -path "$h/$NAME*"; done
  find "$(dirname "$STATE")" -maxdepth 1 -name "$NAME*" ! -name '*.lock'
}

# "pid start-time name" of every process of the cluster, pods' included; with its start time a pid means one process for ever
processes() {
  local pid
  for pid in $(for h in $(hierarchies); do cat $(find "$h/$NAME" -name cgroup.procs); done | sort -un); do
    sed 's/^\([0-9]*\) (\(.*\)) /\1 \2 /' "/proc/$pid/stat" 2>/dev/null | awk '{ print $1, $(NF - 30), $2 }' || true
  done
}

before=$(picture)
"$HERE/up.sh"
ran=$(processes)
"$HERE/down.sh"
after=$(picture)

failed=0
if [ "$before" != "$after" ]; then
  diff <(echo "$before") <(echo "$after") || true
  failed=1
fi
still_there() {
  local pid start name
  while read -r pid start name; do
    [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{ print $20 }')" != "$start" ] || echo "process $pid $name"
  done <<<"$ran"
}
# the dead wait a moment for this machine's PID 1 to bury them
for _ in $(seq 50); do [ -n "$(still_there)" ] || break; sleep 0.1; done
[ -z "$(still_there)" ] || { still_there; failed=1; }
count=$(wc -l <<<"$ran")
[ "$count" -gt 20 ] || { echo "only $count processes were seen while it ran: the check itself is broken"; failed=1; }
[ $failed = 0 ] || { echo "the cluster left something behind" >&2; exit 1; }
echo "nothing left behind: $count processes ended; links, addresses, routes, namespaces, mounts, rules, sysctls, cgroups and state as before"
