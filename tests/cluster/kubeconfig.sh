#!/usr/bin/env bash
# Prints the path of the KUBECONFIG in force: the user's, or else the embedded cluster's.
set -euo pipefail
. "$(dirname "$0")/env.sh"
echo "${KUBECONFIG:-$STATE/kubeconfig}"
