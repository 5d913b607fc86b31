//! Conversions of [`crate::routes`].

use super::{DecodeError, endpoints_id, v1};
use crate::routes::{BadPattern, HttpMatch, Pattern, Split, SplitBackend};

pub(super) fn encode_split(split: &Split) -> v1::Split {
    let backend = |one: &SplitBackend| v1::SplitBackend {
        endpoints: one.endpoints.to_string(),
        weight: one.weight,
        split: one.split.as_ref().map(encode_split),
    };
    v1::Split {
        matches: encode_matches(&split.matches),
        backends: split.backends.iter().map(backend).collect(),
    }
}

pub(super) fn decode_split(resource: &str, split: &v1::Split) -> Result<Split, DecodeError> {
    let backend = |one: &v1::SplitBackend| {
        let nested = one.split.as_ref().map(|split| decode_split(resource, split)).transpose()?;
        Ok(SplitBackend { endpoints: endpoints_id(&one.endpoints)?, weight: one.weight, split: nested })
    };
    Ok(Split {
        matches: decode_matches(resource, &split.matches)?,
        backends: split.backends.iter().map(backend).collect::<Result<_, DecodeError>>()?,
    })
}

pub(super) fn encode_matches(matches: &[HttpMatch]) -> Vec<v1::HttpMatch> {
    let header = |(name, pattern): &(String, Pattern)| v1::HeaderMatch {
        name: name.clone(),
        pattern: pattern.as_str().to_owned(),
    };
    let encode = |one: &HttpMatch| v1::HttpMatch {
        methods: one.methods.clone(),
        path: one.path.as_ref().map(|path| path.as_str().to_owned()),
        headers: one.headers.iter().map(header).collect(),
    };
    matches.iter().map(encode).collect()
}

pub(super) fn decode_matches(
    resource: &str,
    matches: &[v1::HttpMatch],
) -> Result<Vec<HttpMatch>, DecodeError> {
    let refused = |text: &str, why: BadPattern| DecodeError::Policy {
        resource: resource.to_owned(),
        what: "match",
        why: format!("{text:?}: {why}"),
    };
    let header = |one: &v1::HeaderMatch| {
        let pattern = Pattern::anywhere(&one.pattern).map_err(|why| refused(&one.pattern, why))?;
        Ok((one.name.clone(), pattern))
    };
    let decode = |one: &v1::HttpMatch| {
        let path = one.path.as_ref();
        let path = path.map(|text| Pattern::at_start(text).map_err(|why| refused(text, why)));
        Ok(HttpMatch {
            methods: one.methods.clone(),
            path: path.transpose()?,
            headers: one.headers.iter().map(header).collect::<Result<_, DecodeError>>()?,
        })
    };
    matches.iter().map(decode).collect()
}
