#!/usr/bin/env bash
# power.sh off|on <machine>: cuts a machine's power, as if its plug were pulled, or starts it again. For tests of lost nodes.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"
[ -z "$FOREIGN" ] || { echo "power.sh works on the embedded cluster only, KUBECONFIG names another" >&2; exit 1; }
[ $# = 2 ] || { echo "usage: power.sh off|on <machine>" >&2; exit 2; }
case $1 in
  off)
    alive "$2" || { echo "$2 does not run" >&2; exit 1; }
    power_off "$2"
    for _ in $(seq 100); do [ -n "$(ip netns pids "$NAME-$2")" ] || exit 0; sleep 0.1; done
    echo "processes of $2 are left: $(ip netns pids "$NAME-$2" | paste -sd' ')" >&2
    exit 1 ;;
  on) NODES=$(printf '%s\n' "$NODES" "${2#node}" | grep -x '[0-9]*' | sort -n | tail -n 1) "$HERE/up.sh" ;;
  *) echo "usage: power.sh off|on <machine>" >&2; exit 2 ;;
esac
