{{/* Standard labels; takes (dict "root" $ "component" "operator"). */}}
{{- define "weft.labels" -}}
{{ include "weft.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* The labels that select pods; they never change during the life of a release. */}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Full name of an image; takes (dict "root" $ "name" "weft-operator"). */}}
{{- define "weft.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Pod Security `restricted`, for a pod. */}}
{{- define "weft.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Pod Security `restricted`, for a container. */}}
{{- define "weft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "weft.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Names of cluster-wide objects and of those in other namespaces carry the namespace, so that two meshes in one
cluster do not fight over them. */}}
{{- define "weft.outsideName" -}}
weft-operator-{{ .Release.Namespace }}
{{- end }}

{{/* Of the cluster's DNS, as JSON lists: the ConfigMaps with a Corefile that clusters have, those that are made where there are
none, and those of NodeLocal DNSCache. */}}
{{- define "weft.corefiles" -}}
{{- ternary (uniq (list .Values.dns.configMap "coredns" "rke2-coredns-rke2-coredns")) list (ne .Values.dns.provider "KubeDNS") | toJson }}
{{- end }}

{{- define "weft.madeForDns" -}}
{{- concat (ternary (list "coredns-custom") list (ne .Values.dns.provider "KubeDNS")) (ternary (list "kube-dns") list (ne .Values.dns.provider "CoreDNS")) | toJson }}
{{- end }}

{{- define "weft.dnsCaches" -}}
{{- list "node-local-dns" "nodelocaldns" | toJson }}
{{- end }}

{{/* Runs before the release is deleted, and is gone afterwards unless it failed. */}}
{{- define "weft.cleanupHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Runs before anything of the release is installed or upgraded, and is gone afterwards unless it failed. */}}
{{- define "weft.crdsHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
