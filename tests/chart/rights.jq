# From the JSON documents of a rendered chart: who may do what, one line for each right. Roles without a binding give
# nothing, bindings to missing roles are an error.
def where: if .metadata.namespace then "in " + .metadata.namespace else "in the whole cluster" end;

# A role of Kubernetes' own that is bound.
[{kind: "Role", metadata: {name: "extension-apiserver-authentication-reader", namespace: "kube-system"},
  rules: [{apiGroups: [""], resources: ["configmaps"], resourceNames: ["extension-apiserver-authentication"],
    verbs: ["get", "list", "watch"]}]}] as $builtin
| map(select(. != null)) + $builtin | . as $all
| [ $all[]
    | select(.kind == "RoleBinding" or .kind == "ClusterRoleBinding") as $binding
    | ([$all[] | select(.kind == $binding.roleRef.kind and .metadata.name == $binding.roleRef.name
        and (.kind == "ClusterRole" or .metadata.namespace == $binding.metadata.namespace))]
      | if length == 1 then .[0] else error("\($binding.metadata.name) binds \(length) roles") end) as $role
    | $binding.subjects[] as $subject
    | $role.rules[] as $rule
    | $rule.apiGroups[] as $group
    | $rule.resources[] as $resource
    | ($rule.resourceNames // [null])[] as $name
    | "\($subject.kind) \($subject.namespace)/\($subject.name)"
      + " | " + ($binding | where)
      + " | " + $resource + (if $group == "" then "" else "." + $group end) + (if $name then " \($name)" else "" end)
      + " | " + ($rule.verbs | join(", "))
  ]
| sort[]
