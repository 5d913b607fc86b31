//! Which requests are meant, and where a part of the traffic goes instead: what the Service Mesh Interface calls route groups
//! and splits, compiled as far as both sides need it. Who may send them is in [`crate::access`].

use regex::{Regex, RegexBuilder};

use crate::model::EndpointsId;

/// A compiled pattern may take so many bytes.
const LARGEST: usize = 1 << 18;
/// What is kept of the work of matching may take so many bytes, for each thread.
const LARGEST_CACHE: usize = 1 << 17;

/// A regular expression, compiled. Matching takes time in proportion to the text, whatever the expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// Why a pattern was refused, for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

impl Pattern {
    /// Matches texts that begin with what `text` describes.
    pub fn at_start(text: &str) -> Result<Self, BadPattern> {
        Self::compile(text, &format!("^(?:{text})"))
    }

    /// Matches texts that have what `text` describes anywhere in them.
    pub fn anywhere(text: &str) -> Result<Self, BadPattern> {
        Self::compile(text, text)
    }

    fn compile(text: &str, whole: &str) -> Result<Self, BadPattern> {
        // By itself first: in the group, `a)(b` would do.
        let build =
            |text: &str| RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST_CACHE).build();
        let regex = build(text).and_then(|_| build(whole));
        let regex = regex.map_err(|error| BadPattern(error.to_string().replace('\n', " ")))?;
        Ok(Self { text: text.into(), regex })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

/// Some HTTP requests: those for which all of this holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HttpMatch {
    /// The method is one of these. Any when empty.
    pub methods: Vec<String>,
    /// The path, without its query, begins with this. Any when `None`.
    pub path: Option<Pattern>,
    /// There is each of these headers, with a value in which the pattern is found. Names are in lower case.
    pub headers: Vec<(String, Pattern)>,
}

/// The traffic of a port is divided among others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Split {
    /// Only requests that one of these describes are divided. All when empty.
    pub matches: Vec<HttpMatch>,
    /// Where they go. With a weight of 0 nothing goes there.
    pub backends: Vec<SplitBackend>,
}

/// One share of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitBackend {
    /// The endpoints it goes to.
    pub endpoints: EndpointsId,
    /// Means something only beside the others.
    pub weight: u32,
    /// What goes there is divided once more; requests that this split does not concern go to `endpoints`.
    pub split: Option<Split>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_from_its_start_and_a_header_anywhere() {
        let path = Pattern::at_start("/books|/pens").unwrap();
        assert!(path.matches("/books/1") && path.matches("/pens"));
        assert!(
            !path.matches("/my/books") && !path.matches("/my/pens"),
            "all alternatives are held to the start"
        );
        let header = Pattern::anywhere("Android").unwrap();
        assert!(header.matches("Mozilla (Android 5)") && !header.matches("Mozilla"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_one_line() {
        for wrong in ["(", "a)(b", "[", "a{1000}{1000}{1000}", "(?P<x>"] {
            let error = Pattern::at_start(wrong).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{wrong}: {error}");
        }
    }
}
