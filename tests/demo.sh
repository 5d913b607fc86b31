#!/usr/bin/env bash
# Shows the main job to a person: brings up a real cluster, installs Weft, lets pods call each other through the mesh and
# past it, and says at each step what happened. Ends well only if the traffic really went through the proxies of the
# clients' own nodes. With KUBECONFIG set it uses that cluster and the images that WEFT_IMAGE_REGISTRY and WEFT_IMAGE_TAG name.
set -euo pipefail
TESTS=$(cd "$(dirname "$0")" && pwd)
. "$TESTS/cluster/env.sh"
cd "$TESTS/.."
REGISTRY=${WEFT_IMAGE_REGISTRY:-localhost} TAG=${WEFT_IMAGE_TAG:-dev}
began=$SECONDS

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
step() { printf '\n%s%s%s  (%d s)\n' "$bold" "$*" "$plain" $((SECONDS - began)); }
say() { printf '  %s\n' "$*"; }
indent() { sed -u 's/^/  /'; }
fail() {
  printf '\n%sFAILED:%s %s\n' "$bold" "$plain" "$*" >&2
  exit 1
}
apply() { kubectl apply --server-side --force-conflicts --field-manager=demo "$@"; }

step "1. A Kubernetes cluster"
"$TESTS/cluster/up.sh" | indent
export PATH=$BIN:$PATH KUBECONFIG=${KUBECONFIG:-$STATE/kubeconfig}
kubectl get nodes -o custom-columns='NODE:.metadata.name,VERSION:.status.nodeInfo.kubeletVersion,ADDRESS:.status.addresses[0].address' | indent

step "2. Images of operator, proxy and the sample, built from source and loaded into the nodes"
"$TESTS/images/build.sh" 2>&1 | indent
if [ -z "$FOREIGN" ]; then ids=$(sha256sum "$WEFT_CACHE"/images/weft-{operator,proxy}.tar | sha256sum | cut -c1-12); else ids=$TAG; fi

step "3. Weft, by its Helm chart, into a namespace that enforces Pod Security 'restricted'"
apply -f - <<YAML | indent
apiVersion: v1
kind: Namespace
metadata:
  name: weft-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
    # The tests may take it away.
    weft.mesh/made-by-a-test: "true"
YAML
# The annotation makes new pods when the images changed under their tag.
helm upgrade --install weft charts/weft --namespace weft-system --wait --timeout 120s \
  --set image.registry="$REGISTRY" --set image.tag="$TAG" --set-string operator.podAnnotations.images="$ids" >/dev/null
kubectl -n weft-system get pods -l app.kubernetes.io/component=operator -o wide | awk '{ print $1, $2, $3, $7 }' | column -t | indent

step "4. A mesh: one MeshConfig"
# On the embedded cluster a MeshConfig that no demo has marked, or that tests have written to, has settings of theirs.
if [ -z "$FOREIGN" ]; then
  left=$(kubectl -n weft-system get meshconfigs -o json --show-managed-fields | jq -r '.items[].metadata
    | select(.annotations["demo-images"] == null or any(.managedFields[]?; .manager == "weft-tests")).name')
  if [ -n "$left" ]; then
    say "what tests have left goes first, and its proxies with it"
    # shellcheck disable=SC2086 # several names
    kubectl -n weft-system delete meshconfigs $left --timeout=120s | indent
    [ -n "$(kubectl -n weft-system get meshconfigs -o name)" ] ||
      kubectl -n weft-system wait --for=delete daemonset/weft-proxy --timeout=120s >/dev/null
  fi
fi
before=$(kubectl -n weft-system get daemonset weft-proxy --ignore-not-found -o name)
apply -f docs/samples/meshconfig.yaml | indent
kubectl -n weft-system wait --for=create daemonset/weft-proxy --timeout=60s >/dev/null
# Proxies of an older build are replaced as well.
if [ "$(kubectl -n weft-system get meshconfig weft -o jsonpath='{.metadata.annotations.demo-images}')" != "$ids" ]; then
  [ -z "$before" ] || kubectl -n weft-system rollout restart daemonset/weft-proxy | indent
  kubectl -n weft-system annotate --overwrite meshconfig weft demo-images="$ids" >/dev/null
fi
say "waiting until it is Ready"
kubectl -n weft-system rollout status daemonset/weft-proxy --timeout=180s | tail -n 1 | indent
kubectl -n weft-system wait --for=condition=Ready meshconfig/weft --timeout=120s >/dev/null || {
  kubectl -n weft-system get meshconfig weft -o yaml | indent
  kubectl -n weft-system get pods -o wide | indent
  fail "the MeshConfig did not become Ready"
}
kubectl -n weft-system get meshconfig weft | indent
kubectl -n weft-system get meshconfig weft -o json |
  jq -r '.status.conditions[] | "\(.type)=\(.status)  \(.message)"' | indent

step "5. A sample: Service 'whoami' with a server on every node, and a client on every node"
mapfile -t nodes < <(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}')
{
  cat <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: whoami}
---
apiVersion: v1
kind: Service
metadata: {name: whoami, namespace: whoami}
spec:
  selector: {app: whoami}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: whoami, namespace: whoami}
spec:
  replicas: ${#nodes[@]}
  selector: {matchLabels: {app: whoami}}
  template:
    metadata: {labels: {app: whoami}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: whoami}}}
      containers:
      - name: server
        image: $REGISTRY/weft-lab:$TAG
        args: [serve]
        env:
        - {name: APP, value: whoami}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
YAML
  for node in "${nodes[@]}"; do
    cat <<YAML
---
apiVersion: v1
kind: Pod
metadata: {name: client-$node, namespace: whoami, labels: {app: client}}
spec:
  nodeName: $node
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: "$REGISTRY/weft-lab:$TAG", args: [sleep]}]
YAML
  done
} | apply -f - >/dev/null
kubectl -n whoami rollout status deployment/whoami --timeout=60s | tail -n 1 | indent
kubectl -n whoami wait --for=condition=Ready pods -l app=client --timeout=60s >/dev/null
kubectl -n whoami get pods -o wide | awk '{ print $1, $2, $3, $6, $7 }' | column -t | indent

step "6. What the operator made of it"
shadow=
for _ in $(seq 100); do
  shadow=$(kubectl -n weft-system get services -l weft.mesh/service-namespace=whoami,weft.mesh/service-name=whoami -o name)
  [ -z "$shadow" ] || break
  sleep 0.1
done
[ -n "$shadow" ] || fail "the Service whoami/whoami has no shadow Service"
kubectl -n weft-system get "$shadow" -o json | jq -r \
  '"the shadow Service \(.metadata.name) at \(.spec.clusterIP): port \(.spec.ports[0].port) leads to port \(.spec.ports[0].targetPort) of the proxies, the one of the caller'"'"'s node first"' | indent
if [ -z "$FOREIGN" ]; then
  say "a block in CoreDNS's Corefile, beside all that was there (CoreDNS was not restarted):"
  kubectl -n kube-system get configmap coredns -o jsonpath='{.data.Corefile}' | sed -n '/weft/,$p' | indent | indent
else
  say "lines in the cluster's DNS, beside all that was there (no DNS server was restarted):"
  kubectl -n weft-system get meshconfig weft -o jsonpath='{.status.conditions[?(@.type=="DNSConfigured")].message}{"\n"}' | indent | indent
fi

# ask <client> <url>: four answers, a line each: status, server pod, its node, node whose proxy carried it
ask() { kubectl -n whoami exec "$1" -- /weft-lab get "$2" -n 4 --new-connection; }
show() {
  jq -r 'if .error then "    no answer: \(.error)" elif .status != 200 then "    \(.status): \(.body)" else
    "    \(.body.pod) on \(.body.node) answered, " + (if .headers["x-weft-node"] then "carried by the proxy of \(.headers["x-weft-node"])" else "no proxy of ours was involved" end) end'
}

step "7. Calls by the mesh name: the proxy of the caller's own node carries them"
for node in "${nodes[@]}"; do
  url=http://whoami.whoami.weft.mesh/
  say "client-$node: $url"
  # The name is new: DNS and the proxies have it within a moment.
  for _ in $(seq 50); do
    answers=$(ask "client-$node" $url)
    ! jq -e 'select(.status != 200)' <<<"$answers" >/dev/null || { sleep 0.2; continue; }
    break
  done
  show <<<"$answers"
  jq -se --arg node "$node" 'length == 4 and all(.status == 200 and .body.app == "whoami" and .headers["x-weft-node"] == $node and .body.headers["x-weft-node"] == $node)' \
    <<<"$answers" >/dev/null || fail "client-$node was not served through the proxy of its own node"
done

step "8. Calls by the plain name: nothing changed for those who do not ask for the mesh"
for node in "${nodes[@]}"; do
  url=http://whoami.whoami/
  say "client-$node: $url"
  answers=$(ask "client-$node" $url)
  show <<<"$answers"
  jq -se 'length == 4 and all(.status == 200 and (.headers | has("x-weft-node") | not) and (.body.headers | has("x-weft-node") | not))' \
    <<<"$answers" >/dev/null || fail "the plain name does not bypass the mesh"
done

step "Done: the traffic went through the mesh"
end=
if [ -n "$FOREIGN" ]; then shell="your cluster"; else shell="make cluster-shell" end=$'\n  make cluster-down removes the cluster.'; fi
cat <<TEXT
  What to try next ($shell):
    kubectl get meshconfig -A -o wide                       the mesh at a glance
    kubectl explain meshconfig.spec                         what can be configured; with defaults: docs/meshconfig.md
    kubectl -n whoami scale deployment/whoami --replicas=5  then call again
    kubectl -n whoami exec client-${nodes[0]} -- /weft-lab get http://whoami.whoami.weft.mesh/ -n 10
    kubectl -n whoami exec client-${nodes[0]} -- /weft-lab load http://whoami.whoami.weft.mesh/ --expect whoami --mode both --rps 200 --seconds 30
      and meanwhile: kubectl -n weft-system rollout restart daemonset/weft-proxy
    docs/smi.md, "Try it"                                   splits and access control
    helm -n weft-system uninstall weft                      DNS is put back as it was$end
TEXT
