#!/usr/bin/env bash
# Builds CoreDNS in the versions of tests/dns-versions, once each, and lets each of them, and the cluster's own, take up Weft's block and
# answer by it. Needs no cluster, but its CoreDNS.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
: "${CARGO_TARGET_DIR:=$WEFT_CACHE/target}"
export CARGO_TARGET_DIR

COREDNS=$BIN/coredns
for module in "$TESTS"/dns-versions/*/go.mod; do
  version=$(basename "$(dirname "$module")")
  source=$(dirname "$module")
  hash=$(cat "$source"/go.{mod,sum} "$TESTS/dns-versions/main.go" | sha256sum | cut -c1-16)
  binary=$WEFT_CACHE/coredns-versions/coredns-$version-$hash
  if [ ! -x "$binary" ]; then
    build=$(mktemp -d)
    cp "$source"/go.{mod,sum} "$TESTS/dns-versions/main.go" "$build"
    mkdir -p "$(dirname "$binary")"
    echo "building CoreDNS $version"
    (cd "$build" && CGO_ENABLED=0 go build -mod=readonly -o "$binary" .)
    rm -rf "$build"
  fi
  COREDNS+=:$binary
done
.ci/checkout
COREDNS=$COREDNS exec cargo test --locked -p weft-operator --test coredns -- --ignored --nocapture
