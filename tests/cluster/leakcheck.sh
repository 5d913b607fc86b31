#!/usr/bin/env bash
# Compares this machine before and after `up` and `down` of a cluster of its own: nothing may be left.
set -euo pipefail
export NAME=leak NET=172.29.9
. "$(dirname "$0")/env.sh"
picture() {
  echo "links: $(ip -o link | awk -F': ' '{print $2}' | sort | paste -sd' ')"
  echo "routes: $(ip route | sort | paste -sd';')"
  echo "namespaces: $(ip netns | sort | paste -sd' ')"
  echo "mounts: $(wc -l </proc/mounts)"
  echo "rules: $(nft list ruleset 2>/dev/null | sha256sum)"
  echo "cgroups: $(find $CG -type d -path "*/$NAME*" | wc -l)"
  echo "processes: $(pgrep -fc -- "/$NAME/|$NAME-" || true)"
}
before=$(picture)
"$HERE/up.sh"
"$HERE/down.sh"
after=$(picture)
if [ "$before" != "$after" ]; then
  diff <(echo "$before") <(echo "$after") || true
  echo "the cluster left something behind" >&2
  exit 1
fi
echo "nothing left behind"
