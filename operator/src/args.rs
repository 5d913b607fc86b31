//! The command line. Every flag can be given as an environment variable.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use weft_config::contract;

/// The Weft operator.
#[derive(Debug, Clone, Parser)]
#[command(name = "weft-operator", version)]
pub struct Args {
    /// Our namespace: where the MeshConfig is and the data plane lives.
    #[arg(long, env = "POD_NAMESPACE", global = true, default_value = "weft-system")]
    pub namespace: String,
    /// error, warn, info, debug or trace; or a filter such as `info,weft_operator=debug`.
    #[arg(long, env = "WEFT_LOG_LEVEL", global = true, default_value = "info")]
    pub log_level: String,
    /// How log lines look.
    #[arg(long, env = "WEFT_LOG_FORMAT", global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(RunArgs),
    /// Delete every MeshConfig of the namespace and see to it that everything behind them goes: by the running operator, or
    /// where none answers by this command itself. Helm calls this before it removes the operator.
    Cleanup(CleanupArgs),
    /// Bring the CRD of MeshConfig to this version, unless it is of a newer one. Helm calls this before it installs or upgrades
    /// anything else.
    ApplyCrds {
        /// How long to wait until every version is served.
        #[arg(long, env = "WEFT_CRDS_TIMEOUT_SECONDS", default_value_t = 30)]
        timeout_seconds: u64,
    },
}

/// Flags of `cleanup`.
#[derive(Debug, Clone, ClapArgs)]
pub struct CleanupArgs {
    /// How long an operator that is at work may take, in seconds.
    #[arg(long, env = "WEFT_CLEANUP_TIMEOUT_SECONDS", default_value_t = 120)]
    pub timeout_seconds: u64,
    /// Take everything out at once, whether an operator runs or not, and go on where the DNS block cannot be taken out. Only
    /// where no operator will come back: the two would undo each other's work.
    #[arg(long, env = "WEFT_CLEANUP_FORCE")]
    pub force: bool,
    /// As whom the lease is taken.
    #[arg(long, env = "POD_NAME", default_value = "weft-cleanup")]
    pub pod_name: String,
}

/// Flags of `run`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RunArgs {
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Image of the proxies, unless the MeshConfig names another.
    #[arg(long, env = "WEFT_PROXY_IMAGE")]
    pub proxy_image: String,
    /// Port of the config stream.
    #[arg(long, env = "WEFT_CONFIG_PORT", default_value_t = contract::CONFIG_PORT)]
    pub config_port: u16,
    /// Port of /metrics, /livez and /readyz.
    #[arg(long, env = "WEFT_ADMIN_PORT", default_value_t = contract::ADMIN_PORT)]
    pub admin_port: u16,
    /// Whether the traffic metrics API is served. Its `APIService` must be there, and the rights it takes.
    #[arg(long, env = "WEFT_SMI_METRICS")]
    pub smi_metrics: bool,
    /// Port of the traffic metrics API.
    #[arg(long, env = "WEFT_METRICS_API_PORT", default_value_t = contract::METRICS_API_PORT)]
    pub metrics_api_port: u16,
    /// Port of the resolver of mesh names, UDP and TCP.
    #[arg(long, env = "WEFT_RESOLVER_PORT", default_value_t = contract::DNS_PORT)]
    pub dns_port: u16,
    /// Port of the debug API, on the loopback address.
    #[arg(long, env = "WEFT_DEBUG_PORT", default_value_t = contract::DEBUG_PORT)]
    pub debug_port: u16,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
