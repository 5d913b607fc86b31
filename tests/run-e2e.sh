#!/usr/bin/env bash
# run-e2e.sh <suite> [test name...]: brings up the cluster, builds and loads the images and runs one suite of end-to-end
# tests. With KUBECONFIG set it uses that cluster and the images that WEFT_IMAGE_REGISTRY and WEFT_IMAGE_TAG name.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
SUITE=${1:?which suite?}
shift
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
: "${CARGO_TARGET_DIR:=$WEFT_CACHE/target}"
export CARGO_TARGET_DIR
# The suite that upgrades needs something to upgrade to.
[ "$SUITE" != lifecycle ] || export WEFT_NEXT_TAG=${WEFT_NEXT_TAG:-next}
.ci/checkout

"$TESTS/cluster/up.sh"
"$TESTS/images/build.sh"
export PATH=$BIN:$PATH
if [ -z "$FOREIGN" ]; then
  export NAME KUBECONFIG=$STATE/kubeconfig WEFT_CLUSTER_STATE=$STATE
fi
# A test that fails says what it saw; where in the harness it did so is noise.
export RUST_BACKTRACE=0
exec cargo test --locked -p weft-tests --features e2e --test "e2e-$SUITE" -- --test-threads="${E2E_THREADS:-4}" --show-output "$@"
