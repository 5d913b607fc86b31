#!/usr/bin/env bash
# (Re)generate tools/<name>/go.mod: only needed when versions.env changes. The go.mod+go.sum are checked in.
set -euo pipefail
cd "$(dirname "$0")"; . ./versions.env
mod() { # dir module version pkg...
  local d=tools/$1 m=$2 v=$3; shift 3
  mkdir -p "$d"; cd "$d"; [ -f go.mod ] || printf 'module weft.test/tools/%s\n\ngo 1.26.0\n' "${d#tools/}" >go.mod
  go mod edit -require="$m@v$v"; for p; do go mod edit -tool="$p"; done
  go mod tidy -e >tidy.log 2>&1 || { tail -5 tidy.log; exit 1; }; rm -f tidy.log; cd ../..
}
# Kubernetes: its go.mod replaces every staging module with ./staging/..., which is not inherited, so pin
# each one to the published v0.MINOR.PATCH of the same release.
mkdir -p tools/kubernetes; rm -f tools/kubernetes/go.{mod,sum}
( cd tools/kubernetes; printf 'module weft.test/tools/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n' >go.mod
  G=$(go mod download -json "k8s.io/kubernetes@v$KUBE" | jq -r .GoMod)
  for m in $(go mod edit -json "$G" | jq -r '.Replace[]|select(.New.Path|startswith("./staging/"))|.Old.Path'); do
    go mod edit -replace "$m=$m@v0.${KUBE#1.}"; done )
K=k8s.io/kubernetes/cmd
mod kubernetes k8s.io/kubernetes $KUBE $K/kube-apiserver $K/kube-controller-manager $K/kube-scheduler $K/kubelet $K/kube-proxy $K/kubectl
mod etcd go.etcd.io/etcd/server/v3 $ETCD go.etcd.io/etcd/server/v3
mod coredns github.com/coredns/coredns $COREDNS      # our main.go picks the plugins
C=github.com/containerd/containerd/v2
mod containerd $C $CONTAINERD $C/cmd/containerd $C/cmd/containerd-shim-runc-v2 $C/cmd/ctr
P=github.com/containernetworking/plugins
mod cni $P $CNI $P/plugins/main/ptp $P/plugins/main/bridge $P/plugins/main/loopback $P/plugins/meta/portmap $P/plugins/ipam/host-local
mod helm helm.sh/helm/v3 $HELM helm.sh/helm/v3/cmd/helm
