//! The mesh's own defaults, from the MeshConfig.

use weft_config::{RateLimit, Timeouts};
use weft_crds::MeshConfigSpec;

use super::{Settings, timeouts};

impl Settings {
    /// What holds where a Service says nothing. What the schema cannot check and is no good is told, by field, and left out.
    pub fn of_mesh(spec: &MeshConfigSpec) -> (Self, Vec<String>) {
        let defaults = &spec.defaults;
        let mut problems = Vec::new();
        let expression = defaults.circuit_breaker.as_ref().map(|breaker| &breaker.expression);
        let circuit_breaker = expression.and_then(|text| {
            let told = |error| problems.push(format!("spec.defaults.circuitBreaker.expression: {error}"));
            text.parse().map_err(told).ok()
        });
        let mut duration = |field: &str, text: &Option<String>| {
            let told = |error| problems.push(format!("spec.defaults.timeouts.{field}: {error}"));
            timeouts::parse(text.as_ref()?).map_err(told).ok()
        };
        let timeouts = Timeouts {
            request: duration("request", &defaults.timeouts.request),
            idle: duration("idle", &defaults.timeouts.idle),
            connect: duration("connect", &defaults.timeouts.connect),
        };
        let settings = Self {
            traffic_type: spec.default_traffic_type.into(),
            retry_attempts: defaults.retry.as_ref().map(|retry| retry.attempts),
            circuit_breaker,
            rate_limit: defaults
                .rate_limit
                .as_ref()
                .map(|limit| RateLimit { average: limit.average, burst: limit.burst }),
            timeouts,
            ..Self::default()
        };
        (settings, problems)
    }
}
