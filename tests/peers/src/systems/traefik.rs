//! Traefik: the file provider, a router and a service for each Service.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Start, write};
use crate::Result;
use crate::ports::{ADMIN, BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, front};

pub(super) fn prepare(program: &Path, work: &Path, services: u16) -> Result<Start> {
    let http = |url: String| json!({ "loadBalancer": { "servers": [{ "url": url }] } });
    let raw = |backend: u16| json!({ "loadBalancer": { "servers": [{ "address": format!("127.0.0.1:{backend}") }] } });
    let (mut routers, mut targets) = (Map::<String, Value>::new(), Map::<String, Value>::new());
    for number in 0..services {
        let name = format!("svc-{number}");
        let rule = format!("Host(`{name}.bench.svc`)");
        routers.insert(name.clone(), json!({ "entryPoints": ["web"], "rule": rule, "service": name }));
        targets.insert(name, http(format!("http://127.0.0.1:{BACKEND_HTTP}")));
    }
    routers
        .insert("h2c".into(), json!({ "entryPoints": ["h2c"], "rule": "PathPrefix(`/`)", "service": "h2c" }));
    targets.insert("h2c".into(), http(format!("h2c://127.0.0.1:{BACKEND_H2C}")));
    let any = |entry: &str| json!({ "entryPoints": [entry], "rule": "HostSNI(`*`)", "service": entry });
    let dynamic = json!({
        "http": { "routers": routers, "services": targets },
        "tcp": {
            "routers": { "echo": any("echo"), "bulk": any("bulk") },
            "services": { "echo": raw(BACKEND_ECHO), "bulk": raw(BACKEND_BULK) },
        },
        "udp": {
            "routers": { "datagrams": { "entryPoints": ["datagrams"], "service": "datagrams" } },
            "services": { "datagrams": raw(BACKEND_UDP) },
        },
    });
    // YAML reads JSON.
    let dynamic = write(&work.join("traefik-dynamic.yaml"), &serde_json::to_string(&dynamic)?)?;
    let entry =
        |backend: u16, kind: &str| json!({ "address": format!("127.0.0.1:{}{kind}", front(backend)) });
    let config = json!({
        "global": { "checkNewVersion": false, "sendAnonymousUsage": false },
        "entryPoints": {
            "web": entry(BACKEND_HTTP, ""),
            "h2c": entry(BACKEND_H2C, ""),
            "echo": entry(BACKEND_ECHO, ""),
            "bulk": entry(BACKEND_BULK, ""),
            "datagrams": entry(BACKEND_UDP, "/udp"),
            "metrics": { "address": format!("127.0.0.1:{ADMIN}") },
        },
        "metrics": { "prometheus": { "entryPoint": "metrics", "addServicesLabels": true } },
        "providers": { "file": { "filename": dynamic } },
        "log": { "level": "ERROR" },
    });
    let config = write(&work.join("traefik.yaml"), &serde_json::to_string(&config)?)?;
    let mut start = Start::new(program, [format!("--configFile={config}")]);
    start.environment.push(("GOMAXPROCS", "1".to_owned()));
    Ok(start)
}
