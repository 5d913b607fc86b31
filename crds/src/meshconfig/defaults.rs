//! `spec.defaultTrafficType` and `spec.defaults`: what holds for Services that ask for nothing themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// What is spoken on the ports of a Service.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficType {
    /// HTTP/1.0, HTTP/1.1 and HTTP/2 in the clear, over its TCP ports.
    #[default]
    Http,
    /// Anything over its TCP ports.
    Tcp,
    /// Datagrams over its UDP ports.
    Udp,
}

/// What holds for every Service whose annotations do not say otherwise.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Defaults {
    /// How often a request is tried. Absent: up to 10 endpoints when no connection can be made, up to 5 when one
    /// breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,

    /// When requests are refused for a while. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// How many requests each pod may send to each Service, counted by each proxy. Absent: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,

    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How often a request is tried.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries in all, the first included; 1: none is repeated.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u8,
}

/// When requests are refused for a while.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// For example NetworkErrorRatio() > 0.5 || ResponseCodeRatio(500, 600, 0, 600) > 0.3.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
}

/// A token bucket for each pod that calls.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests a second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub average: u32,

    /// Requests at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

/// How long things may take: a whole number with ms, s, m or h behind it, for example 500ms.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// From an HTTP request to the end of its answer, all tries included. Absent: any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::duration()))]
    pub request: Option<String>,

    /// HTTP: silence of a pod in the middle of a request; absent: 5m. TCP: silence of both sides; absent: any time.
    /// UDP: after how long without a datagram a source is forgotten; absent: 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::duration()))]
    pub idle: Option<String>,

    /// For a connection to a pod. Absent: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::duration()))]
    pub connect: Option<String>,
}
