#!/usr/bin/env bash
# Builds the static binaries, packs each into an image of its own and loads them into every node of the cluster.
# WEFT_IMAGE_TAG names their tag (default dev). With KUBECONFIG set nothing is loaded: it says how to push them.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/cluster/env.sh

TARGET=x86_64-unknown-linux-gnu
: "${CARGO_TARGET_DIR:=$WEFT_CACHE/target}"
export CARGO_TARGET_DIR
TAG=${WEFT_IMAGE_TAG:-dev}
ARCHIVES=$WEFT_CACHE/images
mkdir -p "$ARCHIVES"

# One invocation for each binary, so that none is built with features that only another asked for. Build scripts and
# procedural macros are built for the host and may not be static: hence the --target.
declare -A profile=([weft-operator]=release [weft-proxy]=fast [weft-lab]=release)
for crate in weft-operator weft-proxy weft-lab; do
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile "${profile[$crate]}" --locked --target $TARGET -p $crate --bin $crate
done

archives=()
for name in weft-operator weft-proxy weft-lab; do
  archive=$ARCHIVES/$name.tar
  python3 tests/images/mkimage.py "$archive" "localhost/$name:$TAG" "/$name" user=65532:65532 "$CARGO_TARGET_DIR/$TARGET/${profile[$name]}/$name:/$name"
  archives+=("$archive")
done
"$HERE/load-image.sh" "${archives[@]}"
