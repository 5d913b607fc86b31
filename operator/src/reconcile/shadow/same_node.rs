//! Whether shadows may ask for the proxy of the caller's node.

use std::time::Duration;

use crate::context::Context;

/// From this minor version on (with major 1) the API server knows `PreferSameNode` without a feature gate of ours (KEP-3015).
const SINCE: u32 = 34;
/// When it is asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether the API server knows `trafficDistribution: PreferSameNode`; asked until it answers.
pub(super) async fn prefers_same_node(ctx: &Context) -> bool {
    loop {
        match ctx.client.apiserver_version().await {
            Ok(version) => {
                let minor =
                    version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
                return version.major == "1" && minor >= SINCE;
            }
            Err(error) => tracing::warn!(%error, "the API server's version"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
