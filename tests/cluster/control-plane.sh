# shellcheck shell=bash
# Sourced by machine-init.sh in the control plane's machine: its daemons.
K=/etc/kubernetes
S=$K/pki
mkdir -p /var/log/audit

# Stands in for the resolver outside the cluster, to which the cluster's CoreDNS forwards.
run coredns-upstream coredns -conf $K/upstream.corefile -dns.port 53
run etcd etcd --name cp --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn --logger zap \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster cp=http://127.0.0.1:2380
run kube-apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$NET.1" --secure-port 6443 \
  --tls-cert-file $S/apiserver.crt --tls-private-key-file $S/apiserver.key --client-ca-file $S/ca.crt \
  --service-cluster-ip-range "$SVC.0.0/16" --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file $S/sa.pub --service-account-signing-key-file $S/sa.key \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged=true \
  --kubelet-client-certificate $S/kubelet-client.crt --kubelet-client-key $S/kubelet-client.key \
  --kubelet-certificate-authority $S/ca.crt --kubelet-preferred-address-types InternalIP,Hostname \
  --enable-aggregator-routing=true \
  --requestheader-client-ca-file $S/front-proxy-ca.crt --requestheader-allowed-names front-proxy-client \
  --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
  --requestheader-extra-headers-prefix X-Remote-Extra- \
  --proxy-client-cert-file $S/front-proxy-client.crt --proxy-client-key-file $S/front-proxy-client.key \
  --audit-policy-file $K/audit.yaml --audit-log-path /var/log/audit/audit.log --audit-log-maxsize 100 --audit-log-maxbackup 2 \
  --v 1
until_ok 500 kubectl --kubeconfig $K/admin.kubeconfig get --raw /readyz

# controller <name> <flags...>
controller() {
  local name=$1 user=$K/${1#kube-}.kubeconfig
  shift
  run "$name" "$name" --kubeconfig "$user" --authentication-kubeconfig "$user" --authorization-kubeconfig "$user" \
    --leader-elect=false --bind-address 127.0.0.1 --kube-api-qps 300 --kube-api-burst 600 "$@"
}
controller kube-controller-manager --service-account-private-key-file $S/sa.key --root-ca-file $S/ca.crt \
  --use-service-account-credentials --cluster-signing-cert-file $S/ca.crt --cluster-signing-key-file $S/ca.key \
  --cluster-name "$NAME" --allocate-node-cidrs=false --requestheader-client-ca-file $S/front-proxy-ca.crt \
  --node-monitor-period 2s --node-monitor-grace-period 20s
controller kube-scheduler
