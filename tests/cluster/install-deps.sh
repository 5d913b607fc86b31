#!/usr/bin/env bash
# Installs what a Debian machine with Rust, Go, gcc and root lacks. Does nothing when all is there.
set -euo pipefail

# command:package; netbase brings /etc/protocols, without which kube-proxy loses Services when it restarts
needs=(runc:runc iptables:iptables nft:nftables conntrack:conntrack openssl:openssl jq:jq ip:iproute2 cmake:cmake
  python3:python3 nsenter:util-linux make:make g++:g++ git:git)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -f /etc/protocols ] || missing+=(netbase)
[ ${#missing[@]} = 0 ] && exit 0

[ "$(id -u)" = 0 ] || { echo "root is needed to install: ${missing[*]}" >&2; exit 1; }
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
