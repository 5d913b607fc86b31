//! Reads label selectors as the Kubernetes API takes them in `labelSelector=`.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// What in a selector cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("labelSelector: {0:?} is no requirement; examples: app=web, app!=web, app in (web,cart), app, !app")]
pub struct BadSelector(String);

/// Reads a selector: requirements with commas between them, all of which must hold.
pub fn parse(text: &str) -> Result<Selector, BadSelector> {
    let requirements = split(text).into_iter().map(str::trim).filter(|one| !one.is_empty());
    requirements.map(|one| requirement(one).ok_or_else(|| BadSelector(one.to_owned()))).collect()
}

/// Splits at the commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        inside = match c {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        c == ',' && !inside
    })
    .collect()
}

fn requirement(text: &str) -> Option<Expression> {
    if let Some(name) = text.strip_prefix('!') {
        return Some(Expression::DoesNotExist(key(name)?));
    }
    if let Some(list) = text.strip_suffix(')') {
        let (left, list) = list.split_once('(')?;
        let (name, operator) = left.trim().rsplit_once(char::is_whitespace)?;
        let values: Option<BTreeSet<_>> = list.split(',').map(value).collect();
        return match operator {
            "in" => Some(Expression::In(key(name)?, values?)),
            "notin" => Some(Expression::NotIn(key(name)?, values?)),
            _ => None,
        };
    }
    if let Some((name, wanted)) = text.split_once("!=") {
        return Some(Expression::NotEqual(key(name)?, value(wanted)?));
    }
    match text.split_once('=') {
        Some((name, wanted)) => {
            Some(Expression::Equal(key(name)?, value(wanted.strip_prefix('=').unwrap_or(wanted))?))
        }
        None => Some(Expression::Exists(key(text)?)),
    }
}

fn key(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && allowed(text, "-_./")).then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    allowed(text, "-_.").then(|| text.to_owned())
}

fn allowed(text: &str, besides: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || besides.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubernetes_writes_them() {
        for (text, shown) in [
            ("", ""),
            ("app=web", "app=web"),
            ("app == web , tier!=db", "app=web,tier!=db"),
            ("example.com/app in (web, cart),!old", "example.com/app in (cart,web),!old"),
            ("env notin (prod),app", "env notin (prod),app"),
            ("app=", "app="),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["=web", "app in", "app in web", "app of (web)", "a b", "app=a=b", "!", "app in (web"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("examples"), "{text}");
        }
    }
}
