# Sourced by every script here: where things are and how the cluster is numbered. All of it can be set from outside, so
# that several clusters live side by side (give each its own NAME and NET).
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WEFT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/weft
: "${NAME:=weft}" "${NODES:=2}"
: "${STATE:=$WEFT_CACHE/state/$NAME}"     # PKI, etcd data, logs, pids
: "${BIN:=$WEFT_CACHE/cluster/bin}"       # the binaries in force, links into $WEFT_CACHE/cluster/<tool>-<hash>
: "${IMAGES:=$WEFT_CACHE/cluster/images}" # image archives every node imports when it starts
: "${NET:=172.29.0}"                      # node network /24: .1 control plane, .10+i node i, .254 this machine
: "${PODS:=10.244}"                       # /16; node i gets $PODS.i.0/24
: "${SVC:=10.96}"                         # /16; .0.1 kubernetes, .0.10 kube-dns
PKI=$STATE/pki
CG=/sys/fs/cgroup

# A KUBECONFIG of the user's means the user's cluster: none is started, none is touched.
if [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$STATE/kubeconfig" ]; then FOREIGN=1; else FOREIGN=; fi
