//! `retry-attempts`: how often a request is tried.

use super::{Annotation, Row, number};

const KEY: &str = "retry-attempts";

pub(super) const ROW: Row = Row {
    annotations: &[Annotation {
        key: KEY,
        allowed: "1 to 10",
        default: "up to 10 endpoints for a connection, up to 5 that broke one",
        meaning: "Tries in all, the first included, each on another endpoint where there is one; 1: none is repeated. A request \
                  is repeated when no connection was made, when one broke before any answer and the method is idempotent, or when an endpoint says over h2 that it has not processed it.",
    }],
    read: |values, settings, problems| {
        let parse = |text: &str| number::parse(text, 1, 10, "the mesh's default is used");
        if let Some(attempts) = values.read(KEY, problems, parse) {
            settings.retry_attempts = Some(attempts);
        }
    },
};
