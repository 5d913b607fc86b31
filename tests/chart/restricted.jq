# From the JSON documents of a rendered chart: what a pod template lacks that Pod Security `restricted` asks for, and what
# we ask for beyond it. Prints one line for each fault.
def faults:
  . as $pod
  | (if .securityContext.runAsNonRoot != true then "runAsNonRoot is not true" else empty end),
    (if .securityContext.runAsUser != 65532 then "runAsUser is not 65532" else empty end),
    (if .securityContext.seccompProfile.type != "RuntimeDefault" then "seccompProfile is not RuntimeDefault" else empty end),
    (if .hostNetwork or .hostPID or .hostIPC then "uses a namespace of the host" else empty end),
    ((.volumes // [])[] | select(keys - ["name", "configMap", "downwardAPI", "emptyDir", "projected", "secret"] != [])
      | "volume \(.name) is of a kind that is not allowed"),
    (((.containers // []) + (.initContainers // []))[]
      | .name as $name
      | (.securityContext // {}) as $security
      | (if $security.allowPrivilegeEscalation != false then "allowPrivilegeEscalation is not false" else empty end),
        (if $security.capabilities.drop != ["ALL"] then "not all capabilities are dropped" else empty end),
        (if $security.capabilities.add then "capabilities are added" else empty end),
        (if $security.readOnlyRootFilesystem != true then "the root file system can be written" else empty end),
        (if $security.privileged then "it is privileged" else empty end),
        (if $security | has("runAsUser") or has("runAsNonRoot") or has("seccompProfile") then "it overrides its pod" else empty end),
        (if any((.ports // [])[]; .hostPort) then "it has a port of the host" else empty end)
      | "container \($name): \(.)");

.[]
| select(. != null and .spec.template.spec)
| "\(.kind) \(.metadata.name): " + (.spec.template.spec | faults)
