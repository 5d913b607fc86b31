//! `HAProxy`: a map from host to backend, connections to servers kept and shared, splicing allowed.

use std::path::Path;

use super::{Start, write};
use crate::Result;
use crate::ports::{ADMIN, BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, front};

pub(super) fn prepare(work: &Path, services: u16) -> Result<Start> {
    let mut map = String::new();
    let mut backends = String::new();
    for number in 0..services {
        map += &format!("svc-{number}.bench.svc b{number}\n");
        backends += &format!("backend b{number}\n  http-reuse safe\n  server s 127.0.0.1:{BACKEND_HTTP}\n");
    }
    let map = write(&work.join("haproxy.map"), &map)?;
    let raw = |backend: u16| {
        format!(
            "listen tcp{backend}\n  mode tcp\n  option splice-auto\n  bind 127.0.0.1:{}\n  server s 127.0.0.1:{backend}\n",
            front(backend)
        )
    };
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4000\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 300s\n  timeout server 300s\n\
         frontend admin\n  bind 127.0.0.1:{ADMIN}\n  http-request use-service prometheus-exporter if {{ path /metrics }}\n\
         frontend http\n  option forwardfor\n  bind 127.0.0.1:{}\n  use_backend %[req.hdr(host),lower,map({map})]\n\
         frontend h2c\n  option forwardfor\n  bind 127.0.0.1:{} proto h2\n  default_backend h2c\n\
         backend h2c\n  server s 127.0.0.1:{BACKEND_H2C} proto h2\n{}{}{backends}",
        front(BACKEND_HTTP),
        front(BACKEND_H2C),
        raw(BACKEND_ECHO),
        raw(BACKEND_BULK),
    );
    let config = write(&work.join("haproxy.cfg"), &config)?;
    Ok(Start::new("/usr/sbin/haproxy", ["-db", "-f", &config]))
}
