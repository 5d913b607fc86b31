#!/usr/bin/env bash
# Removes everything up.sh made: processes, mounts, interfaces, namespaces, cgroups, state. KEEP=1 keeps the state: /var of
# the machines with etcd's data, logs and images.
set -uo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: that cluster is yours and stays as it is"
  exit 0
fi
lock_cluster

for machine in $(machines); do power_off "$machine"; done

namespaces() { for ns in "/run/netns/$NAME-control-plane" "/run/netns/$NAME-node"*; do [ ! -e "$ns" ] || basename "$ns"; done; }
left() { for ns in $(namespaces); do ip netns pids "$ns"; done; }
for _ in $(seq 100); do [ -n "$(left)" ] || break; sleep 0.1; done
if [ -n "$(left)" ]; then
  echo "still running in the cluster's networks, and not ours to end:" >&2
  ps -o pid,args -p "$(left | paste -sd,)" >&2
fi

ip link del "$NAME-up" 2>/dev/null
for ns in $(namespaces); do ip netns del "$ns"; done

cgroups() { for h in $(hierarchies); do [ ! -d "$h/$NAME" ] || echo "$h/$NAME"; done; }
for _ in $(seq 50); do
  for group in $(cgroups); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
  [ -n "$(cgroups)" ] || break
  sleep 0.1
done
[ -z "$(cgroups)" ] || echo "cgroups that could not be removed: $(cgroups | paste -sd' ')" >&2

[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$STATE"
[ -z "$(left)$(cgroups)" ]
