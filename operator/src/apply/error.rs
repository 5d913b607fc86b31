//! Why a write did not happen.

/// Why a write did not happen. The text names the object.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another replica leads, or may.
    #[error("not writing {0}: this replica does not lead")]
    NotLeader(String),
    /// It is somebody else's.
    #[error(
        "{0} is there already and was not made by Weft, so it is left alone: delete it or give it another name"
    )]
    Foreign(String),
    /// Nobody knows whether it was written; the next look tells.
    #[error("{0}: the API server did not answer in time")]
    Unanswered(String),
    /// The API server refused.
    #[error("{object}: {}", plain(source))]
    Api {
        /// Kind, namespace and name.
        object: String,
        /// What it said.
        source: kube::Error,
    },
    /// The object cannot be put into JSON.
    #[error("{object}: {source}")]
    Encoding {
        /// Kind, namespace and name.
        object: String,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// What an error of the API server's says, without the rest of its answer.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("{} ({})", status.reason, status.code),
        other => other.to_string(),
    }
}

impl WriteError {
    /// Whether somebody else wrote in between: looking again helps.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409)
    }

    /// Whether the API server, or the way to it, has more to do than it can: less at a time helps.
    pub fn is_overload(&self) -> bool {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } => status.code == 429 || status.code >= 500,
            Self::Unanswered(_) | Self::Api { .. } => true,
            Self::NotLeader(_) | Self::Foreign(_) | Self::Encoding { .. } => false,
        }
    }

    /// Whether the object would not be a valid one.
    pub(super) fn is_invalid(&self) -> bool {
        self.has_code(422)
    }

    fn has_code(&self, code: u16) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_the_api_server_said_and_no_more() {
        let said = |message: &str| {
            let status = kube::core::Status {
                code: 403,
                reason: "Forbidden".into(),
                message: message.into(),
                ..Default::default()
            };
            let source = kube::Error::Api(Box::new(status));
            WriteError::Api { object: "Service a/b".into(), source }.to_string()
        };
        assert_eq!(said("a policy says no"), "Service a/b: a policy says no");
        assert_eq!(said(""), "Service a/b: Forbidden (403)");
    }

    #[test]
    fn what_less_at_a_time_would_help_is_told_from_what_it_would_not() {
        let refused = |code: u16| {
            let status = kube::core::Status { code, ..Default::default() };
            WriteError::Api { object: "Service a/b".into(), source: kube::Error::Api(Box::new(status)) }
        };
        assert!([429, 500, 503, 504].into_iter().all(|code| refused(code).is_overload()));
        assert!(![403, 404, 409, 422].into_iter().any(|code| refused(code).is_overload()));
        assert!(WriteError::Unanswered("Service a/b".into()).is_overload());
        assert!(!WriteError::NotLeader("Service a/b".into()).is_overload());
    }
}
