#!/usr/bin/env bash
# Removes everything up.sh made: processes, mounts, interfaces, namespaces, cgroups, state. KEEP=1 keeps the state.
set -uo pipefail
. "$(dirname "$0")/env.sh"

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: that cluster is yours and stays as it is"
  exit 0
fi

# `unshare --kill-child`: PID 1 of the machine dies with it, the kernel ends the rest and drops the mounts.
for file in "$STATE"/*/pid; do
  [ -f "$file" ] || continue
  pid=$(cat "$file")
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = unshare ]; then kill -KILL "$pid"; fi
  rm -f "$file"
done

namespaces() { for ns in /run/netns/"$NAME"-control-plane /run/netns/"$NAME"-node*; do [ ! -e "$ns" ] || basename "$ns"; done; }
left() { for ns in $(namespaces); do ip netns pids "$ns"; done; }
for _ in $(seq 100); do [ -n "$(left)" ] || break; sleep 0.1; done
if [ -n "$(left)" ]; then
  echo "still running:" >&2
  ps -o pid,args -p "$(left | paste -sd,)" >&2
fi

ip link del "$NAME-up" 2>/dev/null
for ns in $(namespaces); do ip netns del "$ns"; done

cgroups() { find $CG -maxdepth 2 -type d -name "$NAME"; }
for _ in $(seq 50); do
  for group in $(cgroups); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
  [ -n "$(cgroups)" ] || break
  sleep 0.1
done

[ -n "${KEEP:-}" ] || rm -rf "$STATE"
[ -z "$(left)$(cgroups)" ]
