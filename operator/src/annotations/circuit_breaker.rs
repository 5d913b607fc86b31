//! `circuit-breaker-expression`: when requests are refused for a while.

use weft_config::expression::Expression;

use super::{Annotation, Row};

const KEY: &str = "circuit-breaker-expression";

pub(super) const ROW: Row = Row {
    annotations: &[Annotation {
        key: KEY,
        allowed: "an [expression](circuit-breaker.md)",
        default: "none",
        meaning: "While it holds, requests are refused with 503: for 10 s, then ever fewer of them for another 10 s.",
    }],
    read: |values, settings, problems| {
        let parse = |text: &str| {
            text.parse::<Expression>().map_err(|error| format!("{error}; the mesh's default is used"))
        };
        if let Some(expression) = values.read(KEY, problems, parse) {
            settings.circuit_breaker = Some(expression);
        }
    },
};
