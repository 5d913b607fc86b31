#!/usr/bin/env bash
# node.sh <machine> <command...>: run a command inside a machine, in all of its namespaces and cgroups
set -euo pipefail
. "$(dirname "$0")/env.sh"
machine=$1
shift
pid=$(cat "$STATE/$machine/pid")
init=$(cut -d' ' -f1 "/proc/$pid/task/$pid/children")
for h in $CG $CG/*; do
  for file in "$h/$NAME/$machine/init/cgroup.procs" "$h/$NAME/$machine/cgroup.procs"; do
    if [ -f "$file" ]; then
      echo $$ >"$file"
      break
    fi
  done
done
cd /
exec nsenter -t "$init" --cgroup --mount --pid --uts --ipc --net --root --wd=/ env PATH=/opt/k8s/bin:/usr/sbin:/usr/bin "$@"
