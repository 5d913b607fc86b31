#!/usr/bin/env bash
# run-chaos.sh chaos|soak: brings up the cluster, builds and loads the images and runs a long campaign. The result goes to
# standard output and to target/<name>.json.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
CAMPAIGN=${1:?chaos or soak?}
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
: "${CARGO_TARGET_DIR:=$WEFT_CACHE/target}"
export CARGO_TARGET_DIR

"$TESTS/cluster/up.sh"
"$TESTS/images/build.sh"
export PATH=$BIN:$PATH
[ -n "$FOREIGN" ] || export NAME KUBECONFIG=$STATE/kubeconfig WEFT_CLUSTER_STATE=$STATE
exec cargo run --locked -p weft-tests --features e2e --bin "$CAMPAIGN"
