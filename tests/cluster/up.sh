#!/usr/bin/env bash
# Brings the cluster up; what is up stays as it is, with a greater NODES nodes are added, machines that died start again.
# See README.md for what it consists of.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: using that cluster ($KUBECONFIG), none is started"
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "the embedded cluster needs root (or set KUBECONFIG to a cluster of yours)" >&2; exit 1; }
"$HERE/install-deps.sh"
"$HERE/build.sh"
# A later build of other versions must not change the binaries of a cluster that runs.
BIN=$(readlink -f "$BIN") IMAGES=$(readlink -f "$IMAGES")
. "$HERE/lib.sh"
. "$HERE/machines.sh"
lock_cluster
trap '[ $? = 0 ] || echo "cluster $NAME is not up; logs: $STATE/*/var/log/k8s/, to start afresh: make cluster-down" >&2' EXIT

mkdir -p "$STATE"
KUBECONFIG=$STATE/kubeconfig
cat >"$STATE/cluster.env" <<V
NET=$NET
PODS=$PODS
SVC=$SVC
AUDIT_LOG=$STATE/control-plane/var/log/audit/audit.log
V
k() { "$BIN/kubectl" --kubeconfig "$KUBECONFIG" "$@"; }

every_node() { local i; for i in $(seq "$NODES"); do "$1" "$i" || return 1; done; }
blame_node() { blame "node$1" containerd kubelet kube-proxy; }
start_node() { power_on "node$1" "$1"; }
registered() { k get node "node$1" -o name; }
all_registered() { every_node registered; }
# kubelet and CNI configuration go by the node's number, so the API must say the same
give_pod_range() { k patch node "node$1" -p "{\"spec\":{\"podCIDR\":\"$PODS.$1.0/24\",\"podCIDRs\":[\"$PODS.$1.0/24\"]}}" >/dev/null; }

# The system's objects, only where they are missing: a second `up` must not undo what somebody, Weft for example, has
# written into the CoreDNS ConfigMap since. The Deployment is the last of them.
apply_system() {
  k -n kube-system get deployment coredns -o name >/dev/null 2>&1 || sed "s/@DNS@/$SVC.0.10/" "$HERE/manifests/system.yaml" | k apply -f - >/dev/null
}

"$HERE/pki.sh"
cp "$PKI/admin.kubeconfig" "$KUBECONFIG"
sed "s/@NET@/$NET/g" "$HERE/config/upstream.corefile" >"$STATE/upstream.corefile"
make_lan
power_on control-plane 0
every_node start_node
say "machines started"
wait_for 100 "API server ready" k get --raw /readyz || { blame control-plane etcd kube-apiserver; exit 1; }
wait_for 60 "nodes registered" all_registered || { every_node blame_node; exit 1; }
every_node give_pod_range
wait_for 70 "all nodes Ready" k wait --for=condition=Ready nodes --all --timeout=2s || { every_node blame_node; exit 1; }
# Only now, so that CoreDNS spreads over the nodes instead of filling the first that is Ready.
apply_system
wait_for 100 "CoreDNS ready" k -n kube-system rollout status deployment/coredns --timeout=2s || {
  k -n kube-system describe pods -l k8s-app=kube-dns | tail -n 30 >&2
  k -n kube-system logs -l k8s-app=kube-dns --tail=12 >&2 || true
  blame control-plane kube-scheduler kube-controller-manager
  every_node blame_node
  exit 1
}
echo "KUBECONFIG=$KUBECONFIG (or: make cluster-shell); audit log: $STATE/control-plane/var/log/audit/audit.log"
