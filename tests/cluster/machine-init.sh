#!/bin/bash
# PID 1 of one machine (control plane or node). up.sh starts it in fresh pid, mount, uts, ipc and cgroup namespaces and in
# the machine's network namespace. It builds a private root file system (the host's /usr read-only; own /etc /var /run
# /tmp /proc /sys), pivots into it and supervises the daemons. Killing it ends the machine: the kernel cleans up.
set -euo pipefail
unset KUBECONFIG
. "$(dirname "$0")/env.sh"
MACHINE=$1 INDEX=${2:-0}
DIR=$STATE/$MACHINE
ROOT=$DIR/rootfs

read_only() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }

make_root() {
  mkdir -p "$ROOT" "$DIR/var/log/k8s" "$DIR/var/lib"
  mount -t tmpfs -o mode=755,size=256m tmpfs "$ROOT"
  mkdir -p "$ROOT"/{usr,etc/kubernetes,etc/alternatives,etc/cni/net.d,var,run,tmp,proc,sys,dev,root,.old} \
    "$ROOT"/opt/{k8s/bin,k8s/images,k8s/cluster,cni/bin}
  chmod 1777 "$ROOT/tmp"
  read_only /usr "$ROOT/usr"
  for link in bin sbin lib lib64; do [ ! -e /$link ] || ln -s usr/$link "$ROOT/$link"; done
  read_only /etc/alternatives "$ROOT/etc/alternatives" # iptables -> iptables-nft
  read_only "$BIN" "$ROOT/opt/k8s/bin"
  read_only "$IMAGES" "$ROOT/opt/k8s/images"
  read_only "$HERE" "$ROOT/opt/k8s/cluster"
  mount --bind "$DIR/var" "$ROOT/var"
  ln -sfn /run "$ROOT/var/run"
  mkdir -p "$ROOT/var/tmp" "$ROOT/var/lib"
  mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
  mkdir "$ROOT/run/netns"
  mount -t proc proc "$ROOT/proc"
  mount -t sysfs sysfs "$ROOT/sys"
  mount --rbind /dev "$ROOT/dev"
}

# The cgroup hierarchies are mounted anew, so that this machine's own cgroup is their root. Otherwise every kubelet's
# cAdvisor sees the other machines' containers, asks its own containerd for them and stalls about 3 s on each.
make_cgroups() {
  local at type options flags
  if [ -f $CG/cgroup.controllers ]; then # version 2; we are in its child "init" already, see machines.sh
    mount -t cgroup2 cgroup2 "$ROOT/sys/fs/cgroup"
    return
  fi
  mount -t tmpfs -o mode=755 cgroup "$ROOT/sys/fs/cgroup"
  awk '{for(i=7;i<=NF;i++) if($i=="-") {if($(i+1)=="cgroup"||$(i+1)=="cgroup2") print $5,$(i+1),$(i+3); break}}' \
    /proc/self/mountinfo | grep "^$CG/" | while read -r at type options; do
    mkdir -p "$ROOT$at"
    options=${options#rw,}
    options=${options/#name=/none,name=}
    flags=()
    [ "$type" != cgroup ] || flags=(-o "$options")
    mount -t "$type" "${flags[@]}" cgroup "$ROOT$at"
  done
}

# The kubelet writes these for the whole host; each machine gets a private copy instead.
make_sysctls() {
  local key file
  mkdir -p "$ROOT/run/sysctl"
  for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    file=$ROOT/run/sysctl/${key//\//.}
    cat "/proc/sys/$key" >"$file"
    mount --bind "$file" "$ROOT/proc/sys/$key"
  done
}

make_etc() {
  local etc=$ROOT/etc
  echo "root:x:0:0:root:/root:/bin/bash" >"$etc/passwd"
  echo "root:x:0:" >"$etc/group"
  # nft prints "tcp" only when /etc/protocols is there; without it a kube-proxy that restarts takes its own map elements
  # for stale ones and deletes every Service.
  cp /etc/protocols /etc/services "$etc"
  echo "hosts: files dns" >"$etc/nsswitch.conf"
  echo "nameserver $NET.1" >"$etc/resolv.conf"
  {
    echo "127.0.0.1 localhost"
    echo "$NET.1 control-plane"
    for i in $(seq $MAX_NODES); do echo "$NET.$((10 + i)) node$i"; done
  } >"$etc/hosts"
  printf '%s' "$NAME/$MACHINE" | md5sum | cut -c1-32 >"$etc/machine-id"
  if [ "$MACHINE" = control-plane ]; then
    cp -r "$PKI" "$etc/kubernetes/pki"
    cp "$PKI"/{controller-manager,scheduler,admin}.kubeconfig "$STATE/upstream.corefile" "$HERE/config/audit.yaml" "$etc/kubernetes"
  else
    cp "$BIN"/cni/* "$ROOT/opt/cni/bin" # writable, as on a real node: a DaemonSet may install its CNI plugin
    cp "$PKI/ca.crt" "$PKI/$MACHINE".{crt,key,kubeconfig} "$PKI/kube-proxy.kubeconfig" "$DIR/conf"/*.{yaml,toml} "$etc/kubernetes"
    cp "$DIR/conf"/*.conflist "$etc/cni/net.d"
  fi
}

make_root
make_cgroups
make_sysctls
make_etc
cd "$ROOT"
pivot_root . .old
umount -l /.old
rmdir /.old
mount --make-rshared /
hostname "$MACHINE"
# Many Go daemons on one machine: each with a thread per core would only make them switch more.
export PATH=/opt/k8s/bin:/usr/sbin:/usr/bin HOME=/root GOMAXPROCS=${GOMAXPROCS:-2}
cd /

# run <name> <command...>: keeps a daemon running, its log in /var/log/k8s, its process in /run/<name>.pid. While there is a
# /run/held/<name> it is not started again: tests want it to stay away.
run() {
  local name=$1 code
  shift
  while :; do
    while [ -e "/run/held/$name" ]; do sleep 0.2; done
    code=0
    "$@" >>"/var/log/k8s/$name.log" 2>&1 &
    echo $! >"/run/$name.pid"
    wait $! || code=$?
    echo "== $name exited with $code, started again" >>"/var/log/k8s/$name.log"
    sleep 1
  done &
}

# until_ok <tries> <command...>: every 0.2 s
until_ok() {
  local tries=$1
  shift
  for _ in $(seq "$tries"); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  echo "never succeeded: $*" >&2
}

if [ "$MACHINE" = control-plane ]; then
  . /opt/k8s/cluster/control-plane.sh
else
  . /opt/k8s/cluster/node-daemons.sh
fi
while :; do wait || true; done # also reaps orphans: containerd's shims fork away and land on PID 1
