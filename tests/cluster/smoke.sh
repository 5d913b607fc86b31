#!/usr/bin/env bash
# Checks the embedded cluster itself, apart from Weft: each line is one claim that can fail.
set -uo pipefail
. "$(dirname "$0")/env.sh"
. "$HERE/lib.sh"
if [ -n "$FOREIGN" ]; then
  echo "KUBECONFIG is set: smoke.sh checks the embedded cluster only"
  exit 0
fi
export KUBECONFIG=$STATE/kubeconfig PATH=$BIN:$PATH
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
eventually() { # command...: within 30 s; shows the last state when not
  local deadline=$((SECONDS + 30)) out
  until out=$("$@" 2>&1); do
    [ $SECONDS -lt $deadline ] || { echo "$out"; return 1; }
    sleep 0.2
  done
}
refused() { # words of the refusal, command...: it must fail, and for that reason
  local words=$1 out
  shift
  out=$("$@" 2>&1) && { echo "was not refused: $out"; return 1; }
  echo "$out"
  grep -q "$words" <<<"$out"
}
says() { # pattern command...
  local pattern=$1 out
  shift
  out=$("$@" 2>&1)
  echo "$out"
  grep -Eq "$pattern" <<<"$out"
}

k() { kubectl -n smoke "$@"; }
pod_on() { k get pod -l app=web --field-selector "spec.nodeName=$1,status.phase=Running" -o jsonpath='{.items[0].metadata.name}'; }
address_on() { k get pod "$(pod_on "$1")" -o jsonpath='{.status.podIP}'; }
on() { local node=$1; shift; k exec "$(pod_on "$node")" -- busybox "$@"; } # node busybox-command...
get() { on "$1" timeout 3 busybox wget -q -O - "$2"; } # wget's own -T crashes in Debian's static build
privileged_pod() {
  kubectl -n "$1" create --dry-run=server -f - <<'P'
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
 "spec": {"containers": [{"name": "c", "image": "x", "securityContext": {"privileged": true}}]}}
P
}
both_nodes_answer() { # through the Service, from node1
  local answers
  answers=$(on node1 sh -c "for i in \$(busybox seq 20); do busybox timeout 3 busybox wget -q -O - http://$service/; done" | sort -u | paste -sd' ')
  echo "answers came from: $answers"
  [ "$answers" = "$(kubectl get nodes -o name | sed 's|node/||' | sort | paste -sd' ')" ]
}
replaced() { # a deleted pod gets a successor
  local old
  old=$(pod_on node1)
  k delete pod "$old" --wait=false && eventually new_pod_ready "$old"
}
new_pod_ready() { [ "$(pod_on node1)" != "$1" ] && k wait --for=condition=Ready "pod/$(pod_on node1)" --timeout=1s; }
no_zombies() { ! "$HERE/node.sh" node1 ps -eo stat,pid,args | grep '^Z'; }
as_node1() { kubectl --kubeconfig "$PKI/node1.kubeconfig" "$@"; }
label='{"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}'
api_reaches_pods() { kubectl get --raw /api/v1/namespaces/smoke/services/http:web:http/proxy/; }
proxy_log() { grep -c 'exited with' "$STATE/node1/var/log/k8s/kube-proxy.log"; }
proxy_restarted() { [ "$(proxy_log)" -gt "$1" ] && "$HERE/node.sh" node1 curl -fsS -m 1 http://127.0.0.1:10256/healthz; }
services_survive_proxy() {
  local before
  before=$(proxy_log)
  "$HERE/node.sh" node1 bash -c 'kill $(ps -C kube-proxy -o pid=)' && eventually proxy_restarted "$before" && both_nodes_answer
}

claim "all nodes are Ready" kubectl wait --for=condition=Ready nodes --all --timeout=10s
claim "CoreDNS is available" kubectl -n kube-system rollout status deployment/coredns --timeout=10s

archive=$(mktemp -d)
python3 "$HERE/../images/mkimage.py" "$archive/busybox.tar" localhost/busybox:1 /bin/busybox user=65532:65532 /usr/bin/busybox:/bin/busybox
claim "an image archive loads into every node" "$HERE/load-image.sh" "$archive/busybox.tar"
rm -r "$archive"
kubectl delete namespace smoke --ignore-not-found >/dev/null # of an interrupted run
kubectl apply -f "$HERE/manifests/smoke.yaml" >/dev/null
claim "a 'restricted' DaemonSet runs on every node" k rollout status daemonset/web --timeout=60s
service=$(k get service web -o jsonpath='{.spec.clusterIP}')
port=$(k get service web -o jsonpath='{.spec.ports[0].nodePort}')

claim "DNS: the Service has its ClusterIP" eventually says "$service" on node1 nslookup web.smoke.svc.cluster.local
claim "DNS: other names go to the resolver outside" says "$NET.254" on node1 nslookup host.external.test
claim "DNS: what that does not know does not exist" says NXDOMAIN on node1 nslookup nothing.example.org
claim "a pod of node1 reaches a pod of node2" says '^node2$' get node1 "http://$(address_on node2):8080/"
claim "through its Service all nodes' pods answer" eventually both_nodes_answer
claim "a pod reaches itself through its Service" both_nodes_answer
claim "this machine reaches the NodePort" says '^node' curl -fsS -m 3 "http://$NET.12:$port/"
claim "the API server reaches pods, as it must for webhooks" says '^node' api_reaches_pods
claim "logs" says 'serving on node2' k logs "$(pod_on node2)"
claim "exec passes the exit code on" refused 'exit code 7' on node2 sh -c 'exit 7'
claim "a deleted pod is replaced" replaced
claim "and leaves no zombie on its node" eventually no_zombies
claim "Services survive a restart of kube-proxy" services_survive_proxy
claim "the aggregation layer is on" kubectl get --raw /apis/apiregistration.k8s.io/v1/apiservices
claim "RBAC: a default ServiceAccount may not list Secrets" refused '^no' kubectl auth can-i list secrets --as=system:serviceaccount:smoke:default
claim "NodeRestriction: a node may not give itself a restricted label" refused 'is not allowed to modify labels' as_node1 patch node node1 -p "$label"
claim "Pod Security 'restricted' refuses a privileged pod" refused 'violates PodSecurity' privileged_pod smoke
claim "where it is not enforced the same pod is admitted" privileged_pod default
claim "the audit log names the writer" grep -q '"verb":"create","user":{"username":"admin"' "$AUDIT_LOG"

kubectl delete namespace smoke --wait=false >/dev/null
echo "$passed claims hold, $failed do not"
[ $failed = 0 ]
