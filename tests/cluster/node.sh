#!/usr/bin/env bash
# node.sh <machine> <command...>: runs a command inside a machine (node1, control-plane), in all of its namespaces and cgroups
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"
[ $# -ge 2 ] || { echo "usage: node.sh <machine> <command...>" >&2; exit 2; }
[ -z "$FOREIGN" ] || { echo "node.sh works on the embedded cluster only, KUBECONFIG names another" >&2; exit 1; }
machine=$1
shift
alive "$machine" || { echo "$machine does not run; there are: $(machines | paste -sd' ')" >&2; exit 1; }
pid=$(cat "$STATE/$machine/pid")
init=$(cut -d' ' -f1 "/proc/$pid/task/$pid/children")
for h in $(hierarchies); do
  group=$h/$NAME/$machine
  [ ! -d "$group/init" ] || group=$group/init
  echo $$ >"$group/cgroup.procs"
done
cd /
exec nsenter -t "$init" --cgroup --mount --pid --uts --ipc --net --root --wd env PATH=/opt/k8s/bin:/usr/sbin:/usr/bin "$@"
