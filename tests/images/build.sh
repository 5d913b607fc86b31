#!/usr/bin/env bash
# Builds the static binaries, packs each into an image of its own and loads them into every node of the cluster.
# WEFT_IMAGE_TAG names their tag (default dev). WEFT_NEXT_TAG asks for operator and proxy under another tag as well, as if they
# were of a later version, and for proxies that only pretend. With KUBECONFIG set nothing is loaded: it says how to push them.
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

# Suites on two clusters write the same archives.
exec 8>"$ARCHIVES/lock"
flock 8

archives=()
# pack <archive> <binary> <image> <entrypoint> [label=...]
pack() {
  local archive=$ARCHIVES/$1.tar binary=$CARGO_TARGET_DIR/$TARGET/${profile[$2]}/$2
  python3 tests/images/mkimage.py "$archive" "localhost/$3" "$4" user=65532:65532 "${@:5}" "$binary:/$2"
  archives+=("$archive")
}
for name in weft-operator weft-proxy weft-lab; do pack $name $name "$name:$TAG" "/$name"; done
if [ -n "${WEFT_NEXT_TAG:-}" ]; then
  # The label makes them other images, which nodes have to start anew.
  for name in weft-operator weft-proxy; do pack $name-next $name "$name:$WEFT_NEXT_TAG" "/$name" label=version=next; done
  for fault in refuses fails; do
    pack weft-proxy-that-$fault weft-lab "weft-proxy-that-$fault:$TAG" "/weft-lab,pretend-proxy,$fault"
  done
fi
"$HERE/load-image.sh" "${archives[@]}"
