#!/usr/bin/env bash
# load-image.sh <archive.tar>...: imports images into every running node that does not have that very content yet
set -euo pipefail
. "$(dirname "$0")/env.sh"

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: push the images to a registry your cluster reads, for example"
  for archive; do echo "  skopeo copy oci-archive:$archive docker://<registry>/$(basename "$archive" .tar):<tag>"; done
  echo "and set WEFT_IMAGE_REGISTRY=<registry> and WEFT_IMAGE_TAG=<tag> (see docs/operations.md)"
  exit 0
fi

load() { # node archive
  local node=$1 archive=$2 marker sum
  marker=$STATE/$node/loaded-$(basename "$archive")
  sum=$(sha256sum <"$archive")
  # The marker belongs to one life of the node's containerd state, which is wiped with the state directory.
  [ "$(cat "$marker" 2>/dev/null)" != "$sum" ] || return 0
  "$HERE/node.sh" "$node" ctr -n k8s.io images import - <"$archive" >/dev/null
  echo "$sum" >"$marker"
  echo "loaded $(basename "$archive" .tar) into $node"
}

pids=()
for archive; do
  for pid in "$STATE"/node*/pid; do
    load "$(basename "$(dirname "$pid")")" "$archive" &
    pids+=($!)
  done
done
for pid in "${pids[@]}"; do wait "$pid"; done
