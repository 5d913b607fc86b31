#!/usr/bin/env bash
# Writes tools/<name>/go.mod and go.sum anew from versions.env. Needed only when a version changes; both are checked in.
# usage: mkmods.sh [tool...]
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/versions.env"

# start <tool>: an empty module
start() {
  mkdir -p "$HERE/tools/$1"
  cd "$HERE/tools/$1"
  rm -f go.mod go.sum
  printf 'module weft.test/tools/%s\n\ngo 1.26.0\n' "$1" >go.mod
}

# finish <module> <version> <package...>: requires the module, names the packages as tools, so that tidy keeps what they need
finish() {
  local module=$1 version=$2 package
  shift 2
  go mod edit -require="$module@v$version"
  for package; do go mod edit -tool="$package"; done
  # -e: upstreams' own tests need modules that we do not
  go mod tidy -e 2>/dev/null || { go mod tidy; exit 1; }
}

make_module() {
  echo "tools/$1"
  start "$1"
  case $1 in
    kubernetes)
      # Its go.mod replaces each of its staging modules with a directory. Replacements are not inherited, so each is pinned
      # here to what was published with the same release.
      local upstream staging
      printf '\ngodebug default=go1.26\n' >>go.mod
      upstream=$(go mod download -json "k8s.io/kubernetes@v$KUBE" | jq -r .GoMod)
      for staging in $(go mod edit -json "$upstream" | jq -r '.Replace[] | select(.New.Path | startswith("./staging/")).Old.Path'); do
        go mod edit -replace "$staging=$staging@v0.${KUBE#1.}"
      done
      finish k8s.io/kubernetes "$KUBE" \
        k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl} ;;
    etcd) finish go.etcd.io/etcd/server/v3 "$ETCD" go.etcd.io/etcd/server/v3 ;;
    coredns) finish github.com/coredns/coredns "$COREDNS" ;; # its main.go picks the plugins
    containerd)
      finish github.com/containerd/containerd/v2 "$CONTAINERD" \
        github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr} ;;
    cni)
      finish github.com/containernetworking/plugins "$CNI" \
        github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,meta/portmap,ipam/host-local} ;;
    helm) finish helm.sh/helm/v3 "$HELM" helm.sh/helm/v3/cmd/helm ;;
    *) echo "no such tool: $1" >&2; exit 2 ;;
  esac
}

[ $# -gt 0 ] || set -- kubernetes etcd coredns containerd cni helm
for tool; do make_module "$tool"; done
