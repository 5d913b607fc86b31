#!/usr/bin/env bash
# CA, certificates and kubeconfigs of the cluster: EC P-256 by openssl, about 0.3 s. What exists is kept.
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$PKI"
cd "$PKI"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

ca() { # name
  [ -f "$1.crt" ] && return
  new_key "$1.key"
  openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "/CN=$1" -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature -out "$1.crt"
}

cert() { # ca name subject usage [san]
  [ -f "$2.crt" ] && return
  new_key "$2.key"
  openssl x509 -req -in <(openssl req -new -key "$2.key" -subj "$3") -CA "$1.crt" -CAkey "$1.key" \
    -set_serial "0x$(openssl rand -hex 15)" -days 3650 -sha256 -out "$2.crt" -extfile <(
      printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n%s\n' "$4" "${5:+subjectAltName=$5}"
    ) 2>/dev/null
}

kubeconfig() { # name -> name.kubeconfig with everything embedded
  cat >"$1.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: $NAME, cluster: {server: "https://$NET.1:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: $NAME, context: {cluster: $NAME, user: $1}}]
current-context: $NAME
K
}

ca ca
ca front-proxy-ca
if [ ! -f sa.key ]; then
  new_key sa.key
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
fi
kubernetes=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
cert ca apiserver /CN=kube-apiserver serverAuth "IP:$NET.1,IP:127.0.0.1,IP:$SVC.0.1,DNS:localhost,$kubernetes"
cert ca kubelet-client /CN=kube-apiserver-kubelet-client clientAuth
cert front-proxy-ca front-proxy-client /CN=front-proxy-client clientAuth
cert ca admin /O=system:masters/CN=admin clientAuth
cert ca controller-manager /CN=system:kube-controller-manager serverAuth,clientAuth
cert ca scheduler /CN=system:kube-scheduler serverAuth,clientAuth
cert ca kube-proxy /CN=system:kube-proxy clientAuth
for user in admin controller-manager scheduler kube-proxy; do kubeconfig $user; done
for i in $(seq "$NODES"); do
  cert ca "node$i" "/O=system:nodes/CN=system:node:node$i" serverAuth,clientAuth "DNS:node$i,IP:$NET.$((10 + i))"
  kubeconfig "node$i"
done
