#!/usr/bin/env bash
# A shell with KUBECONFIG set and kubectl and helm on PATH; with arguments, runs them as a command instead.
set -euo pipefail
. "$(dirname "$0")/env.sh"
export KUBECONFIG=${KUBECONFIG:-$STATE/kubeconfig} PATH=$BIN:$PATH
[ -f "$KUBECONFIG" ] || { echo "no cluster: run 'make cluster-up' first" >&2; exit 1; }
[ $# = 0 ] || exec "$@"
echo "KUBECONFIG=$KUBECONFIG; kubectl and helm are on PATH; 'exit' leaves"
exec "${SHELL:-/bin/bash}"
