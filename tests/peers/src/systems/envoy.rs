//! Envoy: a virtual host and a cluster for each Service; it is the first proxy that clients meet.

use std::path::Path;

use serde_json::{Value, json};

use super::{Start, write};
use crate::Result;
use crate::ports::{ADMIN, BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, front};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn prepare(program: &Path, work: &Path, services: u16) -> Result<Start> {
    let names: Vec<_> = (0..services).map(|number| format!("svc-{number}")).collect();
    let hosts: Vec<_> = names.iter().map(|name| host(name, &format!("{name}.bench.svc"))).collect();
    let mut clusters: Vec<_> = names.iter().map(|name| cluster(name, BACKEND_HTTP)).collect();
    let mut h2c = cluster("h2c", BACKEND_H2C);
    h2c["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    clusters.push(h2c);
    for (name, backend) in [("echo", BACKEND_ECHO), ("bulk", BACKEND_BULK), ("udp", BACKEND_UDP)] {
        clusters.push(cluster(name, backend));
    }
    let udp = json!({
        "name": "udp",
        "address": address(front(BACKEND_UDP), "UDP"),
        "listener_filters": [{
            "name": "envoy.filters.udp_listener.udp_proxy",
            "typed_config": {
                "@type": format!("{TYPES}.filters.udp.udp_proxy.v3.UdpProxyConfig"),
                "stat_prefix": "udp",
                "matcher": { "on_no_match": { "action": {
                    "name": "route",
                    "typed_config": { "@type": format!("{TYPES}.filters.udp.udp_proxy.v3.Route"), "cluster": "udp" },
                } } },
            },
        }],
    });
    let config = json!({
        "admin": { "address": address(ADMIN, "TCP") },
        "static_resources": {
            "listeners": [
                http_listener("http", BACKEND_HTTP, &hosts),
                http_listener("h2c", BACKEND_H2C, &[host("h2c", "*")]),
                tcp_listener("echo", BACKEND_ECHO),
                tcp_listener("bulk", BACKEND_BULK),
                udp,
            ],
            "clusters": clusters,
        },
    });
    let config = write(&work.join("envoy.json"), &serde_json::to_string(&config)?)?;
    Ok(Start::new(program, ["--concurrency", "1", "--log-level", "warn", "-c", &config]))
}

fn address(port: u16, protocol: &str) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port, "protocol": protocol } })
}

fn host(cluster: &str, domain: &str) -> Value {
    json!({
        "name": cluster,
        "domains": [domain],
        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": cluster, "timeout": "0s" } }],
    })
}

fn cluster(name: &str, backend: u16) -> Value {
    let endpoint = json!({ "endpoint": { "address": address(backend, "TCP") } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    })
}

fn http_listener(name: &str, backend: u16, hosts: &[Value]) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
    });
    filtered(
        name,
        backend,
        &json!({
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "codec_type": "AUTO",
            "use_remote_address": true,
            "route_config": { "name": name, "virtual_hosts": hosts },
            "http_filters": [router],
        }),
    )
}

fn tcp_listener(name: &str, backend: u16) -> Value {
    filtered(
        name,
        backend,
        &json!({
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": name,
            "cluster": name,
        }),
    )
}

fn filtered(name: &str, backend: u16, filter: &Value) -> Value {
    json!({
        "name": name,
        "address": address(front(backend), "TCP"),
        "filter_chains": [{ "filters": [{ "name": name, "typed_config": filter }] }],
    })
}
