# shellcheck shell=bash
# Sourced after env.sh: what more than one script needs to know of machines, cgroups and the passing of time.

began=$(date +%s%N)
say() { printf 'cluster %5.1f s  %s\n' "$(awk -v ns=$(($(date +%s%N) - began)) 'BEGIN { print ns / 1e9 }')" "$*"; }

# One up or down of a cluster at a time. The lock lies beside the state, which `down` removes.
lock_cluster() {
  mkdir -p "$(dirname "$STATE")"
  exec 9>"$STATE.lock"
  flock -n 9 || { echo "another up or down of cluster $NAME is running, waiting for it ..."; flock 9; }
}

# Names of the machines that were ever started.
machines() { for file in "$STATE"/*/pid; do [ ! -f "$file" ] || basename "$(dirname "$file")"; done; }

# The recorded process is ours and runs. `kill -0` would also accept a zombie, and whoever has that number since.
alive() { # machine
  local pid
  pid=$(cat "$STATE/$1/pid" 2>/dev/null) || return 1
  [[ $(readlink "/proc/$pid/exe") = */unshare ]] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "STATE=$STATE"
}

# Cuts a machine's power. `unshare --kill-child`: its PID 1 dies with it, the kernel ends the rest and drops the mounts.
power_off() { # machine
  if alive "$1"; then kill -KILL "$(cat "$STATE/$1/pid")"; fi
  rm -f "$STATE/$1/pid"
}

version_2() { [ -f $CG/cgroup.controllers ]; }

# Mount points of the cgroup hierarchies: one of version 2, or all of version 1 (and the hybrid's "unified").
hierarchies() {
  local mount
  if version_2; then
    echo $CG
  else
    for mount in $CG/*; do ! mountpoint -q "$mount" || echo "$mount"; done
  fi
}

# wait_for <seconds> <what> <command...>: false when it never came true, or cannot any more because a machine died
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2 last='' machine
  shift 2
  until last=$("$@" 2>&1); do
    for machine in $(machines); do
      alive "$machine" || { echo "cluster: $machine died while waiting for: $what" >&2; return 1; }
    done
    if [ $SECONDS -ge $deadline ]; then
      echo "cluster: TIMEOUT waiting for: $what; last state: $last" >&2
      return 1
    fi
    sleep 0.2
  done
  say "$what"
}

# Shows the end of components' logs, so that a failure names its cause.
blame() { # machine component...
  local machine=$1 component log
  shift
  for component; do
    log=$STATE/$machine/var/log/k8s/$component.log
    echo "--- $machine: end of $log" >&2
    tail -n 12 "$log" >&2 2>/dev/null || echo "(it was never started)" >&2
  done
  if [ -s "$STATE/$machine/init.log" ]; then
    echo "--- $machine: end of $STATE/$machine/init.log" >&2
    tail -n 12 "$STATE/$machine/init.log" >&2
  fi
}
