#!/usr/bin/env bash
# Installs by apt what a Debian machine with Rust, Go, gcc and root lacks. Does nothing, and asks no mirror, when all is there.
set -euo pipefail

# file or command:package
needs=(
  runc:runc iptables:iptables nft:nftables conntrack:conntrack ip:iproute2 sysctl:procps nsenter:util-linux # nodes
  column:bsdextrautils # demo.sh
  /etc/protocols:netbase # without it a kube-proxy that restarts loses Services
  /usr/include/stdlib.h:libc6-dev openssl:openssl jq:jq python3:python3 curl:curl # these scripts
  /usr/bin/busybox:busybox-static # smoke.sh; the other busybox of Debian's is not static
  cmake:cmake make:make g++:g++ git:git # Weft itself
)
missing=()
for need in "${needs[@]}"; do
  have=${need%%:*} package=${need##*:}
  case $have in
    /*) [ -e "$have" ] || missing+=("$package") ;;
    *) command -v "$have" >/dev/null || missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

[ "$(id -u)" = 0 ] || { echo "root is needed to install ${missing[*]}" >&2; exit 1; }
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null || {
  tail -n 20 "$log" >&2
  exit 1
}
