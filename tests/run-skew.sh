#!/usr/bin/env bash
# Builds the version before this one from its commit, beside this checkout, and runs every pairing of operator and proxies of the
# two under load. WEFT_PREVIOUS names another commit. Built once for each commit, in minutes; the rest is one end-to-end test.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
# Nothing is released yet: the commit whose schema, bytes and flags config/tests/skew keeps.
COMMIT=$(git rev-parse --verify "${WEFT_PREVIOUS:-95c37c6}^{commit}")
PREVIOUS=$WEFT_CACHE/previous/$COMMIT TARGET=x86_64-unknown-linux-gnu TAG=${COMMIT:0:7}

if [ ! -e "$PREVIOUS/built" ]; then
  rm -rf "$PREVIOUS"
  mkdir -p "$PREVIOUS/source"
  git archive "$COMMIT" | tar -x -C "$PREVIOUS/source"
  for crate in weft-operator weft-proxy; do
    (cd "$PREVIOUS/source" && RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR="$WEFT_CACHE/target-previous" \
      cargo build --release --locked --target $TARGET -p $crate --bin $crate)
    python3 tests/images/mkimage.py "$PREVIOUS/$crate.tar" "localhost/$crate:$TAG" "/$crate" user=65532:65532 \
      "$WEFT_CACHE/target-previous/$TARGET/release/$crate:/$crate"
  done
  touch "$PREVIOUS/built"
fi
"$TESTS/cluster/up.sh"
"$TESTS/cluster/load-image.sh" "$PREVIOUS"/*.tar
export WEFT_PREVIOUS_CHART=$PREVIOUS/source/charts/weft WEFT_PREVIOUS_TAG=$TAG
exec "$TESTS/run-e2e.sh" lifecycle every_pairing --ignored
