# shellcheck shell=bash
# Sourced by every script here: where things are and how the cluster is numbered. All of it can be set from outside, so
# that several clusters live side by side: give each its own NAME and NET.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WEFT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/weft
: "${NAME:=weft}" "${NODES:=2}"
: "${STATE:=$WEFT_CACHE/state/$NAME}"     # PKI, etcd data, logs, pids, cluster.env
[ ! -f "$STATE/cluster.env" ] || . "$STATE/cluster.env" # a cluster that exists keeps its numbers
: "${NET:=172.29.0}"                      # node network /24: .1 control plane, .10+i node i, .254 this machine
: "${PODS:=10.244}"                       # /16; node i gets $PODS.i.0/24
: "${SVC:=10.96}"                         # /16; .0.1 kubernetes, .0.10 kube-dns
MAX_NODES=9                               # every node has routes to as many from the start
PKI=$STATE/pki
CG=/sys/fs/cgroup

# The binaries and images in force: links that build.sh sets.
: "${BIN:=$WEFT_CACHE/cluster/bin}" "${IMAGES:=$WEFT_CACHE/cluster/images}"

# A KUBECONFIG of the user's means the user's cluster: none is started, none is touched.
if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$STATE/kubeconfig" ]; then FOREIGN=1; else FOREIGN=; fi

# NAME begins the names of interfaces, which have 15 characters, and is matched in globs.
[[ $NAME =~ ^[a-z][a-z0-9]{0,7}$ ]] || { echo "NAME=$NAME: use up to 8 lower-case letters and digits" >&2; exit 2; }
[[ $NODES =~ ^[1-$MAX_NODES]$ ]] || { echo "NODES=$NODES: use 1 to $MAX_NODES" >&2; exit 2; }
