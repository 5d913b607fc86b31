//! Names, ports and paths that operator and proxy must agree on. The operator writes them into the proxy's
//! DaemonSet, the proxy uses them as the defaults of its flags.

/// Audience of the projected `ServiceAccount` token with which a proxy proves itself to the config stream.
pub const TOKEN_AUDIENCE: &str = "config.weft.mesh";

/// Where that token is mounted in the proxy's pod.
pub const TOKEN_PATH: &str = "/var/run/weft/token/token";

/// Where the certificate of the operator's CA is mounted in the proxy's pod (PEM).
pub const CA_PATH: &str = "/var/run/weft/ca/ca.crt";

/// Directory of the last-known-good snapshot in the proxy's pod.
pub const SNAPSHOT_DIR: &str = "/var/lib/weft";

/// Port of the operator's config stream (gRPC over TLS), in its pod and on its Service.
pub const CONFIG_PORT: u16 = 9443;

/// Port of `/metrics`, `/livez` and `/readyz` in operator and proxy pods.
pub const ADMIN_PORT: u16 = 9901;

/// Port of the operator's debug API, on the loopback address of its pod.
pub const DEBUG_PORT: u16 = 9902;

/// Path on the proxy's admin port that answers with a [`crate::status::ProxyStatus`] in JSON.
pub const STATUS_PATH: &str = "/config-status";

/// In the query of [`STATUS_PATH`]: the listen ports, `10000,10001`, whose [`crate::status::ProxyStatus::holders`] are asked for. A
/// proxy that does not know it answers without.
pub const HOLDERS_OF: &str = "holders-of=";

/// Path on the proxy's admin port that answers with a [`crate::show::Configuration`] in JSON: all the proxy holds, or with
/// `?service=namespace/name` what is about that Service. Only for those who have the key that came over the config stream.
pub const CONFIG_PATH: &str = "/config";

/// In the metadata of the config stream's answer: the name of the operator's pod.
pub const OPERATOR_METADATA: &str = "weft-operator-pod";

/// In the environment of a proxy: for how many seconds at most one that is told to end goes on because shadow Services still offer
/// it. A flag would keep older proxies from starting.
pub const OFFERED_SECONDS: &str = "WEFT_OFFERED_SECONDS";

/// Path on the proxy's admin port that answers with [`crate::edges::ProxyEdges`] in JSON.
pub const EDGES_PATH: &str = "/edges";

/// Port of the operator's traffic metrics API (HTTPS), in its pod and on its Service. Only the API server calls it.
pub const METRICS_API_PORT: u16 = 9444;

/// Port (UDP and TCP) of the operator's resolver in its pod; on its Service it is 53.
pub const DNS_PORT: u16 = 9053;

/// Name of the Service of the operator's resolver.
pub const DNS_SERVICE: &str = "weft-dns";

/// Name of the `ServiceAccount` the proxies run as, in the operator's namespace.
pub const PROXY_SERVICE_ACCOUNT: &str = "weft-proxy";

/// Name of the operator's Service; with the namespace it is the TLS server name `weft-operator.<namespace>.svc`.
pub const OPERATOR_SERVICE: &str = "weft-operator";

/// Request and response header that names the node whose proxy carried a request.
pub const NODE_HEADER: &str = "x-weft-node";

/// Default range (inclusive) of the ports proxies listen on: above the well-known ones, below the kernel's
/// ephemeral range (`net.ipv4.ip_local_port_range` starts at 32768).
pub const LISTEN_PORTS: (u16, u16) = (10000, 32767);
