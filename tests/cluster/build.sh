#!/usr/bin/env bash
# Builds the cluster's binaries from the modules pinned in tools/*/go.mod, and the images every node starts with. Each tool
# lies in the cache under a hash of all that goes into it: what is there is not built again, what is shown as there is
# complete. usage: build.sh [tool...]
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/versions.env"
ALL=(kubernetes etcd coredns containerd cni helm)

cache=$WEFT_CACHE/cluster
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || { echo "another build is running, waiting for it ..."; flock 9; }

export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
go=$(go version)

# describe <tool>: sets module, version, tags, ldflags, packages
describe() {
  tags='' ldflags='-s -w'
  case $1 in
    kubernetes)
      module=k8s.io/kubernetes version=$KUBE
      local stamp=k8s.io/component-base/version minor=${KUBE#*.}
      ldflags+=" -X $stamp.gitVersion=v$KUBE -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%.*} -X $stamp.gitTreeState=clean"
      packages=($module/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}) ;;
    etcd)
      module=go.etcd.io/etcd/server/v3 version=$ETCD
      packages=($module) ;;
    coredns)
      module=github.com/coredns/coredns version=$COREDNS
      packages=(.) ;;
    containerd)
      module=github.com/containerd/containerd/v2 version=$CONTAINERD
      tags=no_btrfs,no_zfs,no_devmapper
      ldflags+=" -X $module/version.Version=v$CONTAINERD"
      packages=($module/cmd/{containerd,containerd-shim-runc-v2,ctr}) ;;
    cni)
      module=github.com/containernetworking/plugins version=$CNI
      packages=($module/plugins/{main/ptp,main/loopback,meta/portmap,ipam/host-local}) ;;
    helm)
      module=helm.sh/helm/v3 version=$HELM
      ldflags+=" -X $module/internal/version.version=v$HELM"
      packages=($module/cmd/helm) ;;
    *) echo "no such tool: $1 (there are: ${ALL[*]})" >&2; exit 2 ;;
  esac
  grep -q "\b$module v$version\b" "$HERE/tools/$1/go.mod" || {
    echo "versions.env wants $module $version, tools/$1/go.mod has another: run tests/cluster/mkmods.sh $1" >&2
    exit 1
  }
}

# Measured on two idle cores with an empty Go cache and in this order: later ones find much of theirs built.
expected() {
  case $1 in
    kube-apiserver) echo "4 min" ;;
    kube-controller-manager | coredns | containerd | helm) echo "1 min" ;;
    *) echo "20 s" ;;
  esac
}

name_of() { # what a package's binary is called
  case $1 in
    go.etcd.io/etcd/server/v3) echo etcd ;; # go would call it "server"
    .) echo coredns ;;
    *) echo "${1##*/}" ;;
  esac
}

# hash_of <tool>, after describe: over everything that goes into it
hash_of() {
  {
    cat "$HERE/tools/$1"/*
    echo "$version $tags $ldflags ${packages[*]} $GOFLAGS $go"
  } | sha256sum | cut -c1-16
}

# build <tool> <directory>: into a temporary directory first, so that an interrupted build does not look complete
build() {
  local tool=$1 dir=$2 package name started
  rm -rf "$dir.part"
  mkdir "$dir.part"
  for package in "${packages[@]}"; do
    name=$(name_of "$package")
    started=$SECONDS
    echo "building $name $version (about $(expected "$name") on 2 idle cores) ..."
    (cd "$HERE/tools/$tool" && go build ${tags:+-tags "$tags"} -ldflags "$ldflags" -o "$dir.part/$name" "$package" 9>&-)
    echo "building $name took $((SECONDS - started)) s"
  done
  mv "$dir.part" "$dir"
}

# in_force <name> <directory>: the link $cache/<name> changes in one step
in_force() {
  ln -sfn "${2##*/}" "$cache/$1.new"
  mv -T "$cache/$1.new" "$cache/$1"
}

[ $# -gt 0 ] || set -- "${ALL[@]}"
wanted=" $* " hashes=''
for tool; do describe "$tool"; done # a wrong name or version is said before anything is built
declare -A built
for tool in "${ALL[@]}"; do
  describe "$tool"
  built[$tool]=$cache/$tool-$(hash_of "$tool")
  if [[ $wanted = *" $tool "* ]]; then [ -d "${built[$tool]}" ] || build "$tool" "${built[$tool]}"; fi
  [ ! -d "${built[$tool]}" ] || hashes+=" ${built[$tool]##*/}"
done

# Hard links: a node mounts this directory alone, a symbolic link would lead out of it.
bin=$cache/bin-$(sha256sum <<<"$hashes" | cut -c1-16)
if [ ! -d "$bin" ]; then
  rm -rf "$bin.part"
  mkdir -p "$bin.part/cni"
  for tool in "${ALL[@]}"; do
    [ -d "${built[$tool]}" ] || continue
    if [ "$tool" = cni ]; then into=$bin.part/cni; else into=$bin.part; fi
    ln "${built[$tool]}"/* "$into"
  done
  mv "$bin.part" "$bin"
fi
in_force bin "$bin"

# The images every node starts with: the sandbox process and CoreDNS.
[ -x "$bin/coredns" ] || exit 0
sources=$HERE/../images
images=$cache/images-$({ echo "${built[coredns]}"; cat "$sources/pause.c" "$sources/mkimage.py"; } | sha256sum | cut -c1-16)
if [ ! -d "$images" ]; then
  rm -rf "$images.part"
  mkdir "$images.part"
  gcc -Os -static -s -o "$images.part/pause" "$sources/pause.c"
  python3 "$sources/mkimage.py" "$images.part/pause.tar" localhost/pause:1 /pause user=65535:65535 "$images.part/pause:/pause"
  python3 "$sources/mkimage.py" "$images.part/coredns.tar" localhost/coredns:local /coredns user=65532:65532 "$bin/coredns:/coredns"
  rm "$images.part/pause"
  mv "$images.part" "$images"
fi
in_force images "$images"
