#!/usr/bin/env bash
# Applies the system's manifests from standard input, unless they are there: a second `up` must not undo what somebody, Weft
# for example, has written into the CoreDNS ConfigMap since. usage: apply-once.sh <kubeconfig>
set -euo pipefail
. "$(dirname "$0")/env.sh"
k() { "$BIN/kubectl" --kubeconfig "$1" "${@:2}"; }
if k "$1" -n kube-system get deployment coredns -o name >/dev/null 2>&1; then
  cat >/dev/null
else
  k "$1" apply -f -
fi
