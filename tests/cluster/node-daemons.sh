# shellcheck shell=bash
# Sourced by machine-init.sh in a node's machine: its daemons.
run containerd containerd --config /etc/kubernetes/containerd.toml
until_ok 200 ctr version
for archive in /opt/k8s/images/*.tar; do ctr -n k8s.io images import "$archive" >>/var/log/k8s/import.log 2>&1; done
until_ok 500 kubectl --kubeconfig "/etc/kubernetes/$MACHINE.kubeconfig" get --raw /readyz
run kube-proxy kube-proxy --config /etc/kubernetes/kube-proxy.yaml
run kubelet kubelet --config /etc/kubernetes/kubelet.yaml --kubeconfig "/etc/kubernetes/$MACHINE.kubeconfig" \
  --hostname-override "$MACHINE" --node-ip "$NET.$((10 + INDEX))" \
  --node-labels "topology.kubernetes.io/zone=zone-$INDEX,topology.kubernetes.io/region=$NAME" --v 2
