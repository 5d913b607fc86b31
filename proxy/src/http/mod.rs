//! Carrying an HTTP request. [`phases`] reads as the life of a request, in order; each policy is a module beside it.

pub mod breaker;
pub mod errors;
pub mod headers;
mod log;
pub mod matching;
pub mod phases;
pub mod rate_limit;
pub mod request;
pub mod retry;
pub mod screen;
mod upgrade;
pub mod upstream;

use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerOptions;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;

use crate::access_log::AccessLog;
use crate::tables::Tables;
use phases::Phases;

/// Pingora's engine with our phases in it. One for each worker: its pool of upstream connections is nobody else's.
pub type Engine = HttpProxy<Phases>;

/// Idle upstream connections kept.
const UPSTREAM_POOL: usize = 1024;
/// How long an h2 connection without streams is kept.
const H2_IDLE: Duration = Duration::from_secs(300);

/// An engine for `tables`, on `node`.
pub fn engine(
    tables: Arc<Tables>,
    node: &str,
    access_log: Arc<AccessLog>,
) -> Result<Arc<Engine>, headers::BadNode> {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        max_retries: retry::MOST_TRIES,
        ..ServerConf::default()
    };
    let phases = Phases::new(tables, headers::NodeHeader::new(node)?, access_log);
    let mut engine = HttpProxy::new(phases, Arc::new(conf));
    engine.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(H2_IDLE);
    engine.server_options = Some(options);
    Ok(Arc::new(engine))
}
