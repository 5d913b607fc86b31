#!/usr/bin/env bash
# run-bench.sh <name>: brings up the cluster, builds and loads the images and takes one measurement. The result goes to
# standard output and to target/bench/<name>.json.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
NAME_OF_BENCH=${1:?which measurement?}
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
: "${CARGO_TARGET_DIR:=$WEFT_CACHE/target}"
export CARGO_TARGET_DIR

"$TESTS/cluster/up.sh"
"$TESTS/images/build.sh"
export PATH=$BIN:$PATH
[ -n "$FOREIGN" ] || export KUBECONFIG=$STATE/kubeconfig WEFT_CLUSTER_STATE=$STATE
exec cargo run --locked -p weft-tests --features e2e --bin "bench-$NAME_OF_BENCH"
