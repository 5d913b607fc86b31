#!/usr/bin/env bash
# load-image.sh <archive.tar>...: imports OCI image archives into every node that runs and does not have that very content
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"
[ $# -gt 0 ] || { echo "usage: load-image.sh <archive.tar>..." >&2; exit 2; }

# "name digest" of an archive; mkimage.py writes the index first, so this does not read the layers
identity() {
  tar -xOf "$1" --occurrence=1 index.json | jq -r '.manifests[0] | "\(.annotations["io.containerd.image.name"]) \(.digest)"'
}

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set, so the images are yours to push to a registry that your cluster reads, for example:"
  for archive; do
    name=$(identity "$archive")
    name=${name% *} name=${name##*/}
    echo "  skopeo copy oci-archive:$archive docker://<registry>/$name"
  done
  echo "Then set image.registry=<registry> and image.tag=<tag> for the chart, and WEFT_IMAGE_REGISTRY and WEFT_IMAGE_TAG for the"
  echo "tests. Without a registry, on each node: ctr -n k8s.io images import <archive>, with image.registry=localhost."
  exit 0
fi

load() { # node archive...
  local node=$1 present archive name digest
  shift
  present=$("$HERE/node.sh" "$node" env CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 ctr -n k8s.io images ls </dev/null | awk '{ print $1, $3 }')
  for archive; do
    read -r name digest < <(identity "$archive")
    if grep -qxF "$name $digest" <<<"$present"; then continue; fi
    "$HERE/node.sh" "$node" env CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 ctr -n k8s.io images import - <"$archive" >/dev/null
    echo "loaded $name into $node"
  done
}

pids=()
for node in $(machines); do
  [ "$node" != control-plane ] || continue
  alive "$node" || continue
  load "$node" "$@" &
  pids+=($!)
done
[ ${#pids[@]} -gt 0 ] || { echo "no node of cluster $NAME runs: make cluster-up" >&2; exit 1; }
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit $failed
