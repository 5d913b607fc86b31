//! Conversions of [`crate::policy`].

use std::time::Duration;

use super::{DecodeError, v1};
use crate::policy::{HttpPolicy, RateLimit, Scheme, Timeouts, Traffic, UpstreamTls};

pub(super) fn encode(traffic: &Traffic) -> (v1::TrafficType, Option<v1::HttpPolicy>) {
    match traffic {
        Traffic::Http(policy) if *policy == HttpPolicy::default() => (v1::TrafficType::Http, None),
        Traffic::Http(policy) => (v1::TrafficType::Http, Some(encode_http(policy))),
        Traffic::Tcp => (v1::TrafficType::Tcp, None),
        Traffic::Udp => (v1::TrafficType::Udp, None),
    }
}

pub(super) fn decode(resource: &str, port: &v1::Port) -> Result<Traffic, DecodeError> {
    match port.traffic_type() {
        v1::TrafficType::Http => {
            let policy = port.http.as_ref().map(|policy| decode_http(resource, policy)).transpose()?;
            Ok(Traffic::Http(policy.unwrap_or_default()))
        }
        v1::TrafficType::Tcp => Ok(Traffic::Tcp),
        v1::TrafficType::Udp => Ok(Traffic::Udp),
        v1::TrafficType::Unspecified => {
            Err(DecodeError::TrafficType { resource: resource.to_owned(), value: port.traffic_type })
        }
    }
}

fn encode_http(policy: &HttpPolicy) -> v1::HttpPolicy {
    let (scheme, tls) = match &policy.scheme {
        Scheme::Http => (v1::Scheme::Http, None),
        Scheme::H2c => (v1::Scheme::H2c, None),
        Scheme::Https(tls) => (v1::Scheme::Https, Some(tls)),
    };
    v1::HttpPolicy {
        scheme: scheme.into(),
        tls: tls.map(|tls| v1::UpstreamTls {
            authorities: tls.authorities.clone(),
            server_name: tls.server_name.clone(),
            unverified: tls.unverified,
        }),
        retry_attempts: policy.retry_attempts.unwrap_or(0).into(),
        circuit_breaker: policy.circuit_breaker.as_ref().map(ToString::to_string).unwrap_or_default(),
        rate_limit: policy
            .rate_limit
            .map(|limit| v1::RateLimit { average: limit.average, burst: limit.burst }),
    }
}

fn decode_http(resource: &str, policy: &v1::HttpPolicy) -> Result<HttpPolicy, DecodeError> {
    let refused = |what, why: String| DecodeError::Policy { resource: resource.to_owned(), what, why };
    let scheme = match v1::Scheme::try_from(policy.scheme) {
        Ok(v1::Scheme::Unspecified | v1::Scheme::Http) => Scheme::Http,
        Ok(v1::Scheme::H2c) => Scheme::H2c,
        Ok(v1::Scheme::Https) => {
            let tls = policy.tls.clone().unwrap_or_default();
            Scheme::Https(UpstreamTls {
                authorities: tls.authorities,
                server_name: tls.server_name,
                unverified: tls.unverified,
            })
        }
        Err(_) => return Err(refused("scheme", format!("{} is not known to this version", policy.scheme))),
    };
    let circuit_breaker = match policy.circuit_breaker.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| refused("circuit breaker", format!("{text:?}: {error}")))?),
    };
    Ok(HttpPolicy {
        scheme,
        retry_attempts: match policy.retry_attempts {
            0 => None,
            n => Some(u8::try_from(n).unwrap_or(u8::MAX)),
        },
        circuit_breaker,
        // A zero would refuse everything or nothing.
        rate_limit: policy
            .rate_limit
            .filter(|limit| limit.average > 0 && limit.burst > 0)
            .map(|limit| RateLimit { average: limit.average, burst: limit.burst }),
    })
}

/// `None` when nothing was asked for.
pub(super) fn encode_timeouts(timeouts: &Timeouts) -> Option<v1::Timeouts> {
    let ms = |timeout: Option<Duration>| {
        timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
    };
    (*timeouts != Timeouts::default()).then(|| v1::Timeouts {
        request_ms: ms(timeouts.request),
        idle_ms: ms(timeouts.idle),
        connect_ms: ms(timeouts.connect),
    })
}

pub(super) fn decode_timeouts(timeouts: Option<&v1::Timeouts>) -> Timeouts {
    let duration = |ms: u32| (ms > 0).then(|| Duration::from_millis(ms.into()));
    timeouts.map_or_else(Timeouts::default, |timeouts| Timeouts {
        request: duration(timeouts.request_ms),
        idle: duration(timeouts.idle_ms),
        connect: duration(timeouts.connect_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EndpointsId, Port, Resource, Service, ServiceId};
    use crate::set::Entry;

    fn round_trip(traffic: Traffic, timeouts: Timeouts) {
        let id = ServiceId::new("shop", "cart");
        let endpoints = EndpointsId { service: id.clone(), port: 80 };
        let port = Port {
            port: 80,
            name: String::new(),
            listen_port: 10000,
            traffic,
            timeouts,
            endpoints,
            split: None,
            restriction: None,
        };
        let entry = Entry::new(Resource::Service(Service { id, ports: vec![port] }));
        let back = Entry::try_from(&v1::Resource::from(&entry)).unwrap();
        assert_eq!(back, entry);
    }

    #[test]
    fn every_policy_arrives_as_it_was_sent() {
        let ms = |n| Some(Duration::from_millis(n));
        round_trip(Traffic::default(), Timeouts::default());
        round_trip(Traffic::Tcp, Timeouts { idle: ms(1), ..Timeouts::default() });
        round_trip(Traffic::Udp, Timeouts { request: ms(1), idle: ms(2), connect: ms(86_400_000) });
        let tls = UpstreamTls { authorities: vec![vec![1, 2]], server_name: "a.b".into(), unverified: true };
        for scheme in [Scheme::Http, Scheme::H2c, Scheme::Https(tls)] {
            let policy = HttpPolicy {
                scheme,
                retry_attempts: Some(4),
                circuit_breaker: Some("NetworkErrorRatio() > 0.5".parse().unwrap()),
                rate_limit: Some(RateLimit { average: 1, burst: 2 }),
            };
            round_trip(Traffic::Http(policy), Timeouts::default());
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        let policy = v1::HttpPolicy { circuit_breaker: "Nonsense() > 1".into(), ..v1::HttpPolicy::default() };
        let port = v1::Port { traffic_type: 1, http: Some(policy), ..v1::Port::default() };
        let error = decode("shop/cart", &port).unwrap_err().to_string();
        assert!(error.contains("shop/cart") && error.contains("Nonsense"), "{error}");
        let port = v1::Port { traffic_type: 99, ..v1::Port::default() };
        assert!(decode("shop/cart", &port).unwrap_err().to_string().contains("99"));
    }
}
