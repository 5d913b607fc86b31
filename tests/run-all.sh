#!/usr/bin/env bash
# run-all.sh: the end-to-end tests of `make test`. Most of their time is waiting, so they run on two embedded clusters side by
# side; the second is taken down in the end, and what was said there is shown last. With KUBECONFIG set all run on that cluster,
# one suite after the other.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
. "$TESTS/cluster/env.sh"

run() { "$TESTS/run-e2e.sh" "$@"; }
# Of the suite `lifecycle`, which takes 18 minutes, one test or two for each subject; all of it: `make e2e SUITE=lifecycle`.
lifecycle() {
  REMOVALS=1 run lifecycle at_rest:: chaos:: dns_admission:: drift:: ha:: ownership::of_two outage:: removal::an_operator \
    soak:: state:: upgrade:: upgrade_bad::an_image versions::
}
# The fifty lives under DNS queries are one here.
first() { run main && run data-path && CYCLES=1 run lifecycle crds:: dns_conflict:: dns_cycles::; }
second() { lifecycle && run smi; }

if [ -n "$FOREIGN" ]; then
  first
  second
  exit
fi

# What both need is built once, before.
"$TESTS/cluster/up.sh"
"$TESTS/images/build.sh"
log=$(mktemp)
other() {
  unset KUBECONFIG
  export NAME=beside NET=172.29.1 STATE=
}
set -m # a process group of its own, so that all of it can be ended
(other && second) >"$log" 2>&1 &
group=$!
set +m
end() {
  kill -TERM -- "-$group" 2>/dev/null || true
  (other && "$TESTS/cluster/down.sh") || true
  rm -f "$log"
}
trap end EXIT

first
echo "=== on the second cluster"
tail -n +1 -f --pid=$group "$log"
wait "$group"
