#!/usr/bin/env bash
# Checks the chart without a cluster: lint, golden files, schema, rights, Pod Security. UPDATE=1 writes the golden files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../cluster/env.sh"
. "$here/../cluster/versions.env"
export PATH="$BIN:$PATH"
chart=$here/../../charts/weft
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
  echo "chart: $*" >&2
  failed=1
}

# YAML documents on standard input to one JSON array, by the one YAML parser that is always there: Helm's own.
to_json() {
  local scratch
  scratch=$(mktemp -d "$work/XXXXXX")
  mkdir "$scratch/templates"
  printf 'apiVersion: v2\nname: scratch\nversion: 0.0.1\n' >"$scratch/Chart.yaml"
  { echo "---"; cat; } >"$scratch/documents"
  cat >"$scratch/templates/json" <<'TEMPLATE'
{{- range regexSplit "(?m)^---$" (.Files.Get "documents") -1 }}
{{ fromYaml . | toJson }}
{{- end }}
TEMPLATE
  helm template scratch "$scratch" | grep '^{' | jq -s 'map(select(. != {}))'
}

# golden_file <path>: standard input must be what the file says
golden_file() {
  local file=$1 shown
  shown=$(realpath --relative-to="$here/../.." "$file")
  cat >"$work/golden"
  if cmp -s "$work/golden" "$file"; then return; fi
  if [ -n "${UPDATE:-}" ]; then
    install -D -m 644 "$work/golden" "$file"
    echo "wrote $shown"
  else
    diff -u "$file" "$work/golden" >&2 || true
    fail "$shown is not what the chart makes of it now; if that is meant, run UPDATE=1 tests/chart/check.sh"
  fi
}
golden() { golden_file "$here/golden/$1"; }

render() { helm template weft "$chart" --namespace weft-system --kube-version "$KUBE" "$@"; }

# refused <words in the message> <helm arguments...>: rendering must fail, and say so
refused() {
  local words=$1
  shift
  if render "$@" >"$work/refused" 2>&1; then
    fail "values were accepted that should not be: $*"
  elif ! grep -qF -- "$words" "$work/refused"; then
    fail "the refusal of '$*' does not say '$words': $(cat "$work/refused")"
  fi
}

# Without the CRDs of the Service Mesh Interface, which are generated and looked at below.
without_smi() {
  awk '/^---$/ { if (!smi) printf "%s", document; document = ""; smi = 0 }
    /^# Source: weft\/templates\/smi-crds.yaml$/ { smi = 1 }
    { document = document $0 "\n" }
    END { if (!smi) printf "%s", document }'
}

variants=(default all)

for variant in "${variants[@]}"; do
  values=()
  [ "$variant" = default ] || values=(--values "$here/$variant.yaml")
  helm lint --quiet --strict --kube-version "$KUBE" "${values[@]}" "$chart" || fail "helm lint, $variant values"
  render "${values[@]}" >"$work/$variant.yaml" || fail "helm template, $variant values"
  to_json <"$work/$variant.yaml" >"$work/$variant.json"
  without_smi <"$work/$variant.yaml" | golden "$variant.yaml"
  jq -r -f "$here/restricted.jq" "$work/$variant.json" >"$work/faults"
  [ ! -s "$work/faults" ] || fail "not fit for Pod Security restricted ($variant values): $(cat "$work/faults")"
  # Without this the test above would pass on a chart without pods.
  [ "$(jq '[.[] | select(.spec.template.spec)] | length' "$work/$variant.json")" = 3 ] || fail "expected three pod templates"
done

jq -r -f "$here/rights.jq" "$work/default.json" >"$work/rights"
golden rights.txt <"$work/rights"
! grep -F '*' "$work/rights" >&2 || fail "a right with a wildcard"
! grep '^ServiceAccount [^ ]*/weft-proxy ' "$work/rights" >&2 || fail "the proxies must have no rights"

# The CRD of MeshConfig is Helm's own, installed before all else and never removed: not among the templates.
jq -e '[.[] | select(.kind == "CustomResourceDefinition" and .spec.group == "weft.mesh")] == []' "$work/default.json" >/dev/null ||
  fail "the CRD of MeshConfig is a template: it would belong to a release"

# The CRDs of the Service Mesh Interface: as they are generated, and kept when the release goes.
to_json <"$chart/files/smi-crds.yaml" >"$work/smi-generated.json"
jq '[.[] | select(.kind == "CustomResourceDefinition")]' "$work/default.json" >"$work/smi.json"
jq -en --slurpfile a "$work/smi-generated.json" --slurpfile b "$work/smi.json" '
  def specs: map({(.metadata.name): .spec}) | add; ($a[0] | length == 5) and ($a[0] | specs) == ($b[0] | specs)' >/dev/null ||
  fail "the chart does not install files/smi-crds.yaml as they are"
jq -e 'all(.metadata.annotations["helm.sh/resource-policy"] == "keep")' "$work/smi.json" >/dev/null ||
  fail "CRDs of the Service Mesh Interface would go with the release, and every object with them"
jq -e '[.[] | select(.kind == "CustomResourceDefinition")] == []' "$work/all.json" >/dev/null ||
  fail "smi.installCRDs=false leaves CRDs behind"

# Every switch off.
render --set dns.manage=false --set crds.upgrade=false --set cleanup.enabled=false --set smi.metrics.enabled=false | to_json >"$work/off.json"
jq -e '[.[] | select(.kind == "Job" or .kind == "APIService" or .metadata.namespace == "kube-system")] == []' "$work/off.json" >/dev/null ||
  fail "dns.manage, crds.upgrade, cleanup.enabled and smi.metrics.enabled leave something behind when they are false"

# Values and their schema name the same things, and all.yaml sets every one to something else.
to_json <"$chart/values.yaml" | jq '.[0]' >"$work/values.json"
to_json <"$here/all.yaml" | jq '.[0]' >"$work/all-values.json"
jq -r 'def names($p): to_entries[] | ($p + .key), (select(.value.properties) | .key as $k | .value.properties | names($p + $k + "."));
  .properties | del(.global) | names("")' "$chart/values.schema.json" | sort >"$work/in-schema"
jq -r --slurpfile schema "$chart/values.schema.json" '
  def names($p; $s): to_entries[] | .key as $k | ($p + $k), (select($s[$k].properties) | .value | names($p + $k + "."; $s[$k].properties));
  names(""; $schema[0].properties)' "$work/values.json" | sort >"$work/in-values"
diff "$work/in-schema" "$work/in-values" >&2 || fail "values.schema.json (<) and values.yaml (>) name different values"
jq -rn --slurpfile a "$work/values.json" --slurpfile b "$work/all-values.json" '
  $a[0] as $default | $b[0] as $all | $default | to_entries[] | .key as $top | .value | keys[] as $key
  | select($default[$top][$key] == $all[$top][$key]) | "\($top).\($key)"' |
  grep -vxF -e dns.manage -e crds.upgrade -e cleanup.enabled >"$work/same" && fail "all.yaml leaves at their defaults: $(cat "$work/same")"

refused "additional properties 'replica' not allowed" --set operator.replica=3
refused "additional properties 'operators' not allowed" --set operators.replicas=3
refused "/operator/logLevel" --set operator.logLevel=loud
refused "/operator/replicas" --set operator.replicas=0
refused "invalid propertyName 'app.kubernetes.io/name'" --set 'operator.podLabels.app\.kubernetes\.io/name=mine'
refused "kubeVersion" --kube-version 1.30.0

# The README's table of values: name and comment from values.yaml as it is written, the default from what it parses to.
awk '
  function flush_as(name) { if (text == "") { print FILENAME ":" FNR ": " name " has no comment" >"/dev/stderr"; bad = 1 }; text = "" }
  /^ *$/ { text = ""; next }
  /^ *# / { sub(/^ *# /, ""); text = text (text == "" ? "" : " ") $0; next }
  /^[A-Za-z]+:/ { sub(/:.*/, ""); group = $0; flush_as(group); next }
  /^  [A-Za-z]+:/ { sub(/^  /, ""); sub(/:.*/, ""); print group "." $0 "\t" text; flush_as(group "." $0); next }
  END { exit bad }' "$chart/values.yaml" >"$work/comments" || fail "every value needs a comment right above it"
{
  sed '/^| Value |/,$d' "$chart/README.md"
  echo "| Value | Default | |"
  echo "|---|---|---|"
  jq -r -R --slurpfile values "$work/values.json" 'split("\t") as [$name, $text]
    | "| `\($name)` | `\($values[0] | getpath($name / ".") | tojson)` | \($text) |"' "$work/comments"
} >"$work/README.md"
golden_file "$chart/README.md" <"$work/README.md"

[ "$failed" = 0 ] || exit 1
echo "chart: lint, golden files, rights, Pod Security, schema: all good"
