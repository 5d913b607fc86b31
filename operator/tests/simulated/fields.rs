//! Who owns which fields: server-side apply, as far as our objects need it. Lists that Kubernetes merges by their items' keys are
//! merged so here; maps and lists that it takes as a whole are taken as a whole.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The way to a field: `f:` before a field's name, `k:` before the keys of a list's item, as in `fieldsV1`.
type Path = Vec<String>;

/// The fields that somebody owns.
pub(crate) type Fields = BTreeSet<Path>;

/// The fields of one object by manager and operation.
pub(crate) type Owners = BTreeMap<(String, &'static str), Fields>;

enum Shape {
    /// Field by field.
    Map,
    /// As a whole.
    Atomic,
    /// Item by item, told apart by these fields.
    Keyed(&'static [&'static str]),
}

fn shape(path: &[String], value: &Value) -> Shape {
    let last = path.last().map_or("", |last| last.as_str());
    match (last, value) {
        ("f:selector" | "f:nodeSelector" | "f:securityContext", _) => Shape::Atomic,
        ("f:ports", Value::Array(_)) if path.len() == 2 => Shape::Keyed(&["port", "protocol"]),
        ("f:ports", Value::Array(_)) => Shape::Keyed(&["containerPort", "protocol"]),
        ("f:containers" | "f:volumes" | "f:env" | "f:imagePullSecrets", Value::Array(_)) => {
            Shape::Keyed(&["name"])
        }
        ("f:volumeMounts", Value::Array(_)) => Shape::Keyed(&["mountPath"]),
        ("f:ownerReferences", Value::Array(_)) => Shape::Keyed(&["uid"]),
        (_, Value::Object(_)) => Shape::Map,
        _ => Shape::Atomic,
    }
}

fn item_key(item: &Value, keys: &[&str]) -> String {
    let field = |key: &&str| {
        let value = match (&item[*key], *key) {
            (Value::Null, "protocol") => json!("TCP"),
            (value, _) => value.clone(),
        };
        ((*key).to_owned(), value)
    };
    format!("k:{}", Value::Object(keys.iter().map(field).collect()))
}

/// All fields of `value`, its status and what the API server itself fills in apart.
pub(crate) fn fields(value: &Value) -> Fields {
    let mut all = Fields::new();
    let mut path = Path::new();
    for (key, below) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for own in ["labels", "annotations", "ownerReferences"] {
                    path.extend(["f:metadata".to_owned(), format!("f:{own}")]);
                    gather(&below[own], &mut path, &mut all);
                    path.clear();
                }
            }
            key => {
                path.push(format!("f:{key}"));
                gather(below, &mut path, &mut all);
                path.pop();
            }
        }
    }
    all
}

fn gather(value: &Value, path: &mut Path, all: &mut Fields) {
    if value.is_null() {
        return;
    }
    match (shape(path, value), value) {
        (Shape::Map, Value::Object(map)) if !map.is_empty() => {
            for (key, below) in map {
                path.push(format!("f:{key}"));
                gather(below, path, all);
                path.pop();
            }
        }
        (Shape::Keyed(keys), Value::Array(items)) => {
            for item in items {
                path.push(item_key(item, keys));
                all.insert(path.clone());
                for (key, below) in item.as_object().into_iter().flatten() {
                    path.push(format!("f:{key}"));
                    gather(below, path, all);
                    path.pop();
                }
                path.pop();
            }
        }
        _ => drop(all.insert(path.clone())),
    }
}

/// The keys of lists that are merged item by item, by the way to them.
fn keys_at(path: &[String]) -> &'static [&'static str] {
    match shape(path, &Value::Array(Vec::new())) {
        Shape::Keyed(keys) => keys,
        _ => &[],
    }
}

fn get<'a>(mut value: &'a Value, path: &[String]) -> Option<&'a Value> {
    for (i, step) in path.iter().enumerate() {
        value = match step.split_once(':')? {
            ("f", name) => value.get(name)?,
            _ => value.as_array()?.iter().find(|item| item_key(item, keys_at(&path[..i])) == *step)?,
        };
    }
    Some(value)
}

fn set(value: &mut Value, path: &[String], done: usize, to: &Value) {
    let Some(step) = path.get(done) else {
        // What is there already keeps what others have put into it.
        let empty_map = to.as_object().is_some_and(Map::is_empty) && matches!(shape(path, to), Shape::Map);
        let there = value.is_object() && (is_item(path) || empty_map);
        if !there {
            *value = to.clone();
        }
        return;
    };
    if let Some(name) = step.strip_prefix("f:") {
        if !value.is_object() {
            *value = json!({});
        }
        return set(&mut value[name], path, done + 1, to);
    }
    if !value.is_array() {
        *value = json!([]);
    }
    let Value::Array(items) = value else { return };
    let keys = keys_at(&path[..done]);
    let at = items.iter().position(|item| item_key(item, keys) == *step).unwrap_or_else(|| {
        items.push(serde_json::from_str(&step[2..]).unwrap());
        items.len() - 1
    });
    set(&mut items[at], path, done + 1, to);
}

/// A map or a list that becomes empty goes as well.
fn remove(value: &mut Value, path: &[String], done: usize) {
    let Some(step) = path.get(done) else { return };
    let last = done + 1 == path.len();
    if let Some(name) = step.strip_prefix("f:") {
        let Some(map) = value.as_object_mut() else { return };
        if last {
            map.remove(name);
        } else if let Some(below) = map.get_mut(name) {
            let was = is_empty(below);
            remove(below, path, done + 1);
            if !was && is_empty(below) {
                map.remove(name);
            }
        }
        return;
    }
    let Some(items) = value.as_array_mut() else { return };
    let keys = keys_at(&path[..done]);
    if last {
        items.retain(|item| item_key(item, keys) != *step);
    } else if let Some(item) = items.iter_mut().find(|item| item_key(item, keys) == *step) {
        remove(item, path, done + 1);
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// Who has another opinion than `wanted` of a field that he owns.
pub(crate) fn conflict(object: &Value, owners: &Owners, manager: &str, wanted: &Value) -> Option<String> {
    let new = fields(wanted);
    let others =
        owners.iter().filter(|((owner, operation), _)| (owner.as_str(), *operation) != (manager, "Apply"));
    let differs =
        |path: &&Path| new.contains(*path) && !is_item(path) && get(object, path) != get(wanted, path);
    let mut conflicts = others.filter_map(|((owner, _), theirs)| Some((owner, theirs.iter().find(differs)?)));
    conflicts.next().map(|(owner, path)| format!("conflict with {owner:?}: {}", path.join(".")))
}

/// Applies `wanted` by force, as `manager`.
pub(crate) fn apply(object: &mut Value, owners: &mut Owners, manager: &str, wanted: &Value) {
    let new = fields(wanted);
    let me = (manager.to_owned(), "Apply");
    let old = owners.insert(me.clone(), new.clone()).unwrap_or_default();
    for (_, theirs) in owners.iter_mut().filter(|(owner, _)| **owner != me) {
        // Of one opinion: both own it.
        theirs.retain(|path| !new.contains(path) || is_item(path) || get(object, path) == get(wanted, path));
    }
    let others: Fields =
        owners.iter().filter(|(owner, _)| **owner != me).flat_map(|(_, theirs)| theirs).cloned().collect();
    for path in old.difference(&new).filter(|path| !others.contains(*path)) {
        // An item of a list in which somebody else has a field stays.
        if !(is_item(path) && others.iter().any(|other| other.starts_with(path))) {
            remove(object, path, 0);
        }
    }
    for path in &new {
        if let Some(to) = get(wanted, path) {
            set(object, path, 0, to);
        }
    }
    put_in_order(object, wanted, &mut Path::new());
    for same in ["apiVersion", "kind"] {
        object[same] = wanted[same].clone();
    }
    owners.retain(|_, fields| !fields.is_empty());
}

/// Items stand in the order in which they were applied; those of others come after them.
fn put_in_order(object: &mut Value, wanted: &Value, path: &mut Path) {
    match (shape(path, wanted), object, wanted) {
        (Shape::Map, Value::Object(object), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                if let Some(object) = object.get_mut(key) {
                    path.push(format!("f:{key}"));
                    put_in_order(object, wanted, path);
                    path.pop();
                }
            }
        }
        (Shape::Keyed(keys), Value::Array(items), Value::Array(wanted)) => {
            let order: Vec<_> = wanted.iter().map(|item| item_key(item, keys)).collect();
            let place = |item: &Value| {
                order.iter().position(|key| *key == item_key(item, keys)).unwrap_or(order.len())
            };
            items.sort_by_key(place);
            for (item, wanted) in items.iter_mut().zip(wanted) {
                path.push(item_key(wanted, keys));
                put_in_order(item, wanted, path);
                path.pop();
            }
        }
        _ => {}
    }
}

fn is_item(path: &[String]) -> bool {
    path.last().is_some_and(|last| last.starts_with("k:"))
}

/// Notes that `manager` made `after` of `before` otherwise than by applying.
pub(crate) fn update(owners: &mut Owners, manager: &str, before: &Value, after: &Value) {
    let (was, is) = (fields(before), fields(after));
    let changed: Fields = is
        .iter()
        .filter(|path| !was.contains(*path) || (!is_item(path) && get(before, path) != get(after, path)))
        .cloned()
        .collect();
    for fields in owners.values_mut() {
        fields.retain(|path| is.contains(path) && !changed.contains(path));
    }
    if !changed.is_empty() {
        owners.entry((manager.to_owned(), "Update")).or_default().extend(changed);
    }
    owners.retain(|_, fields| !fields.is_empty());
}

/// As `metadata.managedFields` shows it.
pub(crate) fn managed_fields(owners: &Owners, api_version: &Value) -> Value {
    let entry = |((manager, operation), fields): (&(String, &str), &Fields)| {
        json!({"manager": manager, "operation": operation, "apiVersion": api_version,
            "fieldsType": "FieldsV1", "fieldsV1": tree(fields)})
    };
    Value::Array(owners.iter().map(entry).collect())
}

fn tree(fields: &Fields) -> Value {
    let mut root = Map::new();
    for path in fields {
        let mut here = &mut root;
        for step in path {
            here = here.entry(step.clone()).or_insert_with(|| json!({})).as_object_mut().unwrap();
        }
        if is_item(path) {
            here.insert(".".to_owned(), json!({}));
        }
    }
    Value::Object(root)
}
