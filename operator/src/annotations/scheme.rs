//! `scheme`: what proxies speak to the endpoints of an HTTP Service.

use super::{Annotation, Row};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Name {
    #[default]
    Http,
    H2c,
    Https,
}

pub(super) const ROW: Row = Row {
    annotations: &[Annotation {
        key: "scheme",
        allowed: "`http`, `h2c`, `https`",
        default: "`http`",
        meaning: "What is spoken to the pods: HTTP/1.1, HTTP/2 in the clear (for gRPC), or HTTP over TLS.",
    }],
    read: |values, settings, problems| {
        let parse = |text: &str| match text {
            "http" => Ok(Name::Http),
            "h2c" => Ok(Name::H2c),
            "https" => Ok(Name::Https),
            _ => Err("allowed are http, h2c and https; http is used".to_owned()),
        };
        if let Some(scheme) = values.read("scheme", problems, parse) {
            settings.scheme = scheme;
        }
    },
};
