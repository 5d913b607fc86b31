//! `request-timeout`, `idle-timeout`, `connect-timeout`: how long things may take.

use std::time::Duration;

use super::{Annotation, Row};

const REQUEST: &str = "request-timeout";
const IDLE: &str = "idle-timeout";
const CONNECT: &str = "connect-timeout";

/// The longest that may be asked for: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

pub(super) const ROW: Row = Row {
    annotations: &[
        Annotation {
            key: REQUEST,
            allowed: "a duration such as `500ms`, `5s`, `2m`",
            default: "none",
            meaning: "HTTP: from a request to the end of its answer, all tries included; then 504.",
        },
        Annotation {
            key: IDLE,
            allowed: "a duration",
            default: "HTTP 5m, TCP none, UDP 1m",
            meaning: "HTTP: how long a pod may be silent in the middle of a request. TCP: how long both sides may be. UDP: after \
                      how long without a datagram a source is forgotten.",
        },
        Annotation {
            key: CONNECT,
            allowed: "a duration",
            default: "1s",
            meaning: "How long a connection to a pod may take before another pod is tried.",
        },
    ],
    read: |values, settings, problems| {
        let timeouts = &mut settings.timeouts;
        for (key, timeout) in
            [(REQUEST, &mut timeouts.request), (IDLE, &mut timeouts.idle), (CONNECT, &mut timeouts.connect)]
        {
            if let Some(asked) = values.read(key, problems, parse) {
                *timeout = Some(asked);
            }
        }
    },
};

/// A whole number and its unit: ms, s, m or h.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let refused = || {
        "allowed is a whole number with ms, s, m or h behind it, from 1ms to 24h; the mesh's default is used"
            .to_owned()
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(digits);
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refused()),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms));
    let duration =
        total.map(Duration::from_millis).filter(|duration| !duration.is_zero() && *duration <= LONGEST);
    duration.ok_or_else(refused)
}
