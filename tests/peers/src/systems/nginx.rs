//! nginx: a server block and an upstream with kept connections for each Service; its stream module for TCP and UDP.

use std::path::Path;

use super::{Start, write};
use crate::Result;
use crate::ports::{ADMIN, BACKEND_BULK, BACKEND_ECHO, BACKEND_H2C, BACKEND_HTTP, BACKEND_UDP, front};

/// Added to each request, as its users write it.
const HEADERS: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; \
    proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
    proxy_set_header X-Forwarded-Proto $scheme;";

pub(super) fn prepare(work: &Path, services: u16) -> Result<Start> {
    let mut servers = String::new();
    for number in 0..services {
        servers += &format!(
            "upstream u{number} {{ server 127.0.0.1:{BACKEND_HTTP}; keepalive 512; keepalive_requests 1000000; }}\n\
             server {{ listen 127.0.0.1:{}; server_name svc-{number}.bench.svc; location / {{ proxy_pass http://u{number}; }} }}\n",
            front(BACKEND_HTTP)
        );
    }
    let raw = |backend: u16, udp: &str| {
        format!("server {{ listen 127.0.0.1:{}{udp}; proxy_pass 127.0.0.1:{backend}; }}\n", front(backend))
    };
    let directory = work.join("nginx");
    std::fs::create_dir_all(&directory)?;
    let here = directory.display();
    let config = format!(
        "daemon off; user root; worker_processes 1; worker_rlimit_nofile 65536; pid {here}/pid; error_log {here}/error.log;\n\
         include /etc/nginx/modules-enabled/*.conf;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; keepalive_requests 1000000; keepalive_timeout 300s; client_max_body_size 0; {HEADERS}\n\
         proxy_request_buffering off; server_names_hash_max_size 16384;\n\
         client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
         server {{ listen 127.0.0.1:{ADMIN}; location / {{ stub_status; }} }}\n\
         upstream h2c {{ server 127.0.0.1:{BACKEND_H2C}; keepalive 512; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{} http2; location / {{ grpc_pass grpc://h2c; }} }}\n{servers}}}\n\
         stream {{ {}{}{} }}\n",
        front(BACKEND_H2C),
        raw(BACKEND_ECHO, ""),
        raw(BACKEND_BULK, ""),
        raw(BACKEND_UDP, " udp reuseport"),
    );
    let config = write(&work.join("nginx.conf"), &config)?;
    Ok(Start::new("/usr/sbin/nginx", ["-c", &config]))
}
