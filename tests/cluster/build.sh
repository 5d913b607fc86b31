#!/usr/bin/env bash
# Builds the cluster's binaries from the modules pinned in tools/*/go.mod. Each tool lies in the cache under a hash of all
# that goes into it; what is there is not built again. usage: build.sh [tool...]
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/versions.env"

cache=$WEFT_CACHE/cluster
mkdir -p "$cache" "$BIN" "$BIN/cni"
exec 9>"$cache/lock"
flock 9

export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
version=k8s.io/component-base/version
kubernetes_ldflags="-s -w -X $version.gitVersion=v$KUBE -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$KUBE") -X $version.gitTreeState=clean"

# describe <tool>: sets tags, ldflags, packages
describe() {
  tags='' ldflags="-s -w"
  case $1 in
    kubernetes)
      ldflags=$kubernetes_ldflags
      packages=(k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}) ;;
    etcd) packages=(go.etcd.io/etcd/server/v3) ;;
    coredns) packages=(.) ;;
    containerd)
      tags=no_btrfs,no_zfs,no_devmapper
      ldflags="-s -w -X github.com/containerd/containerd/v2/version.Version=v$CONTAINERD"
      packages=(github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}) ;;
    cni) packages=(github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,meta/portmap,ipam/host-local}) ;;
    helm)
      ldflags="-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM"
      packages=(helm.sh/helm/v3/cmd/helm) ;;
    *) echo "no such tool: $1" >&2; exit 2 ;;
  esac
}

# Minutes on two idle cores with an empty Go cache, so that a person knows what to expect.
expected() { case $1 in kubernetes) echo 6 ;; coredns | containerd | helm) echo 1 ;; *) echo "under 1" ;; esac; }

build() {
  local tool=$1 hash dir started package
  describe "$tool"
  hash=$({
    cat "$HERE/tools/$tool"/{go.mod,go.sum} "$HERE/tools/$tool"/*.go 2>/dev/null || true
    echo "$tags $ldflags ${packages[*]} $GOFLAGS"
    go version
  } | sha256sum | cut -c1-16)
  dir=$cache/$tool-$hash
  if [ ! -d "$dir" ]; then
    rm -rf "$dir.part"
    for package in "${packages[@]}"; do
      started=$SECONDS
      echo "building $tool: ${package##*/} (all of $tool: about $(expected "$tool") min) ..."
      (cd "$HERE/tools/$tool" && go build ${tags:+-tags "$tags"} -ldflags "$ldflags" -o "$dir.part/" "$package")
      echo "building $tool: ${package##*/} took $((SECONDS - started)) s"
    done
    # go names a binary after the last element of its package, which for these two says nothing
    [ "$tool" != etcd ] || mv "$dir.part"/* "$dir.part.etcd"
    [ "$tool" != etcd ] || mv "$dir.part.etcd" "$dir.part/etcd"
    mv "$dir.part" "$dir"
  fi
  local into=$BIN
  [ "$tool" != cni ] || into=$BIN/cni
  for package in "$dir"/*; do
    # Hard links: a node mounts this directory alone, a symbolic link would lead out of it.
    [ "$package" -ef "$into/${package##*/}" ] || ln -f "$package" "$into/${package##*/}"
  done
}

[ $# -gt 0 ] || set -- kubernetes etcd coredns containerd cni helm
for tool; do build "$tool"; done

# The images every node starts with: the sandbox process and CoreDNS.
mkdir -p "$IMAGES"
pause=$IMAGES/pause.tar
if [ ! -f "$pause" ] || [ "$HERE/../images/pause.c" -nt "$pause" ]; then
  gcc -Os -static -s -o "$cache/pause" "$HERE/../images/pause.c"
  "$HERE/../images/mkimage.py" "$pause" localhost/pause:1 /pause user=65535:65535 "$cache/pause:/pause"
fi
coredns=$IMAGES/coredns.tar
if [ ! -f "$coredns" ] || [ "$BIN/coredns" -nt "$coredns" ]; then
  "$HERE/../images/mkimage.py" "$coredns" localhost/coredns:local /coredns user=65532:65532 "$BIN/coredns:/coredns"
fi
