//! Who a server is, as each of its answers tells.

/// Who answers.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Identity {
    /// Name the answers carry, so that a client sees whether it reached whom it meant.
    #[arg(long, env = "APP", default_value = "lab")]
    pub(crate) app: String,
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub(crate) pod: String,
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub(crate) node: String,
}

impl Identity {
    /// One word for protocols that have no room for more: the pod, or outside of pods the app.
    pub(crate) fn name(&self) -> &str {
        if self.pod.is_empty() { &self.app } else { &self.pod }
    }
}
