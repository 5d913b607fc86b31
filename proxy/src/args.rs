//! The command line. Every flag can be given as an environment variable.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use weft_config::contract;

use crate::access_log::Format;

/// The Weft node proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-proxy", version)]
pub struct Args {
    /// Where the operator serves the configuration, for example <https://weft-operator.weft-system.svc:9443>.
    #[arg(long, env = "WEFT_OPERATOR_URL")]
    pub operator_url: String,
    /// Name of the node this proxy runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// File with the token that proves this proxy to the operator; read anew for each connection.
    #[arg(long, env = "WEFT_TOKEN_PATH", default_value = contract::TOKEN_PATH)]
    pub token_path: PathBuf,
    /// File with the certificate of the operator's CA (PEM); read anew for each connection.
    #[arg(long, env = "WEFT_CA_PATH", default_value = contract::CA_PATH)]
    pub ca_path: PathBuf,
    /// Directory of the last-known-good configuration.
    #[arg(long, env = "WEFT_SNAPSHOT_DIR", default_value = contract::SNAPSHOT_DIR)]
    pub snapshot_dir: PathBuf,
    /// Port of /metrics, /livez and /readyz.
    #[arg(long, env = "WEFT_ADMIN_PORT", default_value_t = contract::ADMIN_PORT)]
    pub admin_port: u16,
    /// Worker threads; 0 means one per core this process may use.
    #[arg(long, env = "WEFT_WORKER_THREADS", default_value_t = 0)]
    pub worker_threads: usize,
    /// error, warn, info, debug or trace; or a filter such as `info,weft_proxy=debug`.
    #[arg(long, env = "WEFT_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How log lines look.
    #[arg(long, env = "WEFT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Whether a line is written to standard output for each request, TCP connection and UDP session, and how it looks.
    #[arg(long, env = "WEFT_ACCESS_LOG", value_enum, default_value_t = Format::Off)]
    pub access_log: Format,
    /// Seconds for which it is waited at most, after SIGTERM, until no shadow Service offers this proxy any more.
    #[arg(long, env = contract::OFFERED_SECONDS, default_value_t = 60)]
    pub offered_seconds: u64,
    /// Seconds for which new connections are still taken after SIGTERM, without telling anybody to leave.
    #[arg(long, env = "WEFT_ACCEPT_WINDOW_SECONDS", default_value_t = 5)]
    pub accept_window_seconds: u64,
    /// Seconds that open connections then have to end.
    #[arg(long, env = "WEFT_DRAIN_DEADLINE_SECONDS", default_value_t = 60)]
    pub drain_deadline_seconds: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
