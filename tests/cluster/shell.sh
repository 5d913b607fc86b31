#!/usr/bin/env bash
# A shell with KUBECONFIG set and kubectl and helm on PATH. With arguments it runs them instead: shell.sh kubectl get pods,
# or shell.sh -c 'kubectl get pods | wc -l'.
set -euo pipefail
. "$(dirname "$0")/env.sh"
export KUBECONFIG=${KUBECONFIG:-$STATE/kubeconfig} PATH=$BIN:$PATH
[ -n "$FOREIGN" ] || [ -f "$KUBECONFIG" ] || { echo "no cluster: run 'make cluster-up' first" >&2; exit 1; }
[ -x "$BIN/kubectl" ] || { echo "kubectl and helm are not built: run 'make tools' first" >&2; exit 1; }
case ${1:-} in
  '') ;;
  -c) exec bash "$@" ;;
  *) exec "$@" ;;
esac
echo "KUBECONFIG=$KUBECONFIG; kubectl and helm are on PATH; 'exit' leaves"
exec "${SHELL:-/bin/bash}"
