//! The clients whose requests make the load, and the addresses they use.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::http::{Answer, Connection, Shape, Target, Unsent};
use crate::resolve::Resolver;

/// Whoever asks gives up long before.
const CONNECT: Duration = Duration::from_secs(60);
/// How often the name is asked again.
const REFRESH: Duration = Duration::from_secs(1);

/// The name's addresses, asked anew each second. A failed query is counted apart and leaves the addresses as they were.
pub(super) struct Addresses {
    now: Mutex<Vec<IpAddr>>,
    failures: Mutex<Vec<String>>,
}

impl Addresses {
    /// Resolves for the first time, and from then on in the background.
    pub(super) async fn start(target: &Target) -> Result<Arc<Self>, Failure> {
        let resolver = Resolver::strict()?;
        let first = resolver.addresses(&target.host).await?;
        let addresses = Arc::new(Self { now: Mutex::new(first), failures: Mutex::default() });
        let (kept, host) = (Arc::clone(&addresses), target.host.clone());
        let began = Instant::now();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                match resolver.addresses(&host).await {
                    Ok(found) => *kept.now.lock().unwrap_or_else(PoisonError::into_inner) = found,
                    Err(error) => {
                        let told = format!("{:.1} s: {error}", began.elapsed().as_secs_f64());
                        eprintln!("DNS: {told}");
                        kept.failures.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                    }
                }
            }
        });
        Ok(addresses)
    }

    /// One address for ever.
    #[cfg(test)]
    pub(super) fn fixed(address: IpAddr) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(vec![address]), failures: Mutex::default() })
    }

    /// Queries that failed: when, and how.
    pub(super) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn one(&self) -> Result<IpAddr, Failure> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        fastrand::choice(now.iter()).copied().ok_or_else(|| "the name has no address".into())
    }
}

/// A client of one mode.
pub(super) struct Client {
    addresses: Arc<Addresses>,
    port: u16,
    shape: Shape,
    /// How many connections to keep; `None`: none.
    keep: Option<usize>,
    /// First in, first out, so that all of them stay in use.
    idle: Mutex<VecDeque<Connection>>,
    opened: AtomicUsize,
    resent: AtomicU64,
}

impl Client {
    pub(super) fn new(addresses: Arc<Addresses>, port: u16, shape: Shape, keep: Option<usize>) -> Self {
        let (idle, opened, resent) = Default::default();
        Self { addresses, port, shape, keep, idle, opened, resent }
    }

    /// How many requests went to another connection, see [`Client::ask`].
    pub(super) fn resent(&self) -> u64 {
        self.resent.load(Relaxed)
    }

    /// One request, on a connection that is open or a new one. Where the server closed the connection between two requests, and
    /// has not looked at the second ([`Unsent`]), it goes to another connection, as with every client that keeps connections.
    pub(super) async fn ask(&self) -> Result<Answer, Failure> {
        loop {
            if let Some(connection) = self.idle_connection().await {
                match self.ask_on(connection).await {
                    Err(error) if error.is::<Unsent>() => {
                        self.resent.fetch_add(1, Relaxed);
                    }
                    answer => return answer,
                }
            } else {
                let (address, h2c) = (self.addresses.one()?, self.shape.h2c);
                let opened = Connection::open(address, self.port, h2c, CONNECT).await?;
                self.opened.fetch_add(1, Relaxed);
                return self.ask_on(opened).await;
            }
        }
    }

    async fn ask_on(&self, mut connection: Connection) -> Result<Answer, Failure> {
        let answer = connection.ask(&self.shape).await;
        if self.keep.is_some() && answer.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(connection);
        } else {
            self.opened.fetch_sub(1, Relaxed);
        }
        answer
    }

    /// The idle connection that was not used for longest, passing over those the server has closed. None while fewer than
    /// the wanted number are open.
    async fn idle_connection(&self) -> Option<Connection> {
        if self.opened.load(Relaxed) < self.keep? {
            return None;
        }
        loop {
            let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
            if let Some(connection) = connection.if_usable().await {
                return Some(connection);
            }
            self.opened.fetch_sub(1, Relaxed);
        }
    }
}
