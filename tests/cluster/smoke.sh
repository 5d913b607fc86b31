#!/usr/bin/env bash
# Checks the cluster itself: each line is one claim that can fail.
set -uo pipefail
. "$(dirname "$0")/env.sh"
export KUBECONFIG=${KUBECONFIG:-$STATE/kubeconfig} PATH=$BIN:$PATH
passed=0 failed=0
claim() { # what command...
  local what=$1 out
  shift
  if out=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok    $what"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n%s\n' "$what" "$out"
  fi
}
refused() { ! "$@"; }
pod() { # namespace privileged
  printf '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"%s"},"spec":{"containers":[{"name":"c","image":"x","securityContext":{"privileged":%s}}]}}' "$1" "$2"
}

claim "all nodes are Ready" kubectl wait --for=condition=Ready nodes --all --timeout=10s
claim "CoreDNS answers on its ClusterIP from a node" "$HERE/node.sh" node1 python3 -c '
import socket
q = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"".join(bytes([len(l)]) + l.encode() for l in "kubernetes.default.svc.cluster.local".split(".")) + b"\x00\x00\x01\x00\x01"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); s.sendto(q, ("'"$SVC"'.0.10", 53)); r = s.recv(512)
assert r[3] & 15 == 0 and r[7] >= 1, r'
claim "the aggregation layer is on" kubectl get --raw /apis/apiregistration.k8s.io/v1/apiservices
claim "RBAC: a default ServiceAccount may not list Secrets" refused kubectl auth can-i list secrets --as=system:serviceaccount:default:default
claim "NodeRestriction: node1 may not label node2" refused kubectl --kubeconfig "$PKI/node1.kubeconfig" label node node2 x=y
kubectl create namespace smoke-restricted >/dev/null
kubectl label namespace smoke-restricted pod-security.kubernetes.io/enforce=restricted >/dev/null
claim "Pod Security 'restricted' refuses a privileged pod" refused bash -c "echo '$(pod smoke-restricted true)' | kubectl create --dry-run=server -f -"
claim "without it the same pod is accepted" bash -c "echo '$(pod default true)' | kubectl create --dry-run=server -f -"
kubectl delete namespace smoke-restricted --wait=false >/dev/null
claim "the audit log names the writer" grep -q '"username":"admin"' "$STATE/control-plane/var/log/audit/audit.log"
echo "$passed claims hold, $failed do not"
[ $failed = 0 ]
