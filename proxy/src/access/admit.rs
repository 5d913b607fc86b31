//! The decision for one request, connection or session to a restricted port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use weft_config::AccountId;

use super::accounts::{Account, Accounts};
use super::rules::{Ask, What};
use crate::balance::{EndpointList, Outstanding};
use crate::tables::{Backend, PortEntry, Route};

/// How long a destination that is not known is waited for.
const DESTINATION_PATIENCE: Duration = Duration::from_secs(1);

/// Whose pods may get it, by the numbers of their accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Nearly always the only one.
    first: Option<u32>,
    more: Vec<u32>,
}

impl Allowed {
    fn add(&mut self, account: &Account) {
        if self.first.is_none() {
            self.first = Some(account.number);
        } else {
            self.more.push(account.number);
        }
    }

    fn has(&self, account: Option<&Account>) -> bool {
        account
            .is_some_and(|account| self.first == Some(account.number) || self.more.contains(&account.number))
    }
}

/// Why it was denied, for people: what would have had to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// No pod whose account is known has this address: the host's network, another cluster, or a pod that is gone.
    Stranger(IpAddr),
    /// Nobody is known any more.
    Stale,
    /// It goes to whom no target can allow anything: what is no pod, or runs in the host's network.
    NoDestination,
    /// It goes to pods of another namespace than the Service's.
    Foreign,
    /// No target allows it.
    NotAllowed {
        /// Who sends.
        source: AccountId,
        /// To whom.
        destination: AccountId,
        /// The port number of the Service.
        port: u16,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger(address) => {
                write!(f, "access denied: the caller at {} is no pod whose ServiceAccount is known", address.to_canonical())
            }
            Self::Stale => f.write_str(
                "access denied: no operator of the mesh was there for so long that no caller's ServiceAccount is known",
            ),
            Self::NoDestination => {
                f.write_str("access denied: its endpoints are no pods whose ServiceAccount is known")
            }
            Self::Foreign => f.write_str("access denied: its endpoints are pods of another namespace"),
            Self::NotAllowed { source, destination, port } => write!(
                f,
                "access denied: it takes a TrafficTarget from ServiceAccount {source} to ServiceAccount {destination} \
                 that allows this on port {port}"
            ),
        }
    }
}

fn unknown(accounts: &Accounts, address: IpAddr) -> Denied {
    if accounts.is_stale() { Denied::Stale } else { Denied::Stranger(address) }
}

/// Whether who sends from `address` may send `what` to `port` by `route`, and whose pods may get it. Waits a moment for who is
/// not known yet, on either side: pods and endpoints are told of one after the other. What is denied is counted.
pub async fn soon(
    accounts: &Accounts,
    port: &PortEntry,
    route: Route<'_>,
    address: Option<IpAddr>,
    what: What<'_>,
) -> Result<Allowed, Denied> {
    let admitted = async {
        let Some(address) = address else { return Err(Denied::Stranger(IpAddr::from([0; 4]))) };
        let source = accounts.source_soon(address).await.ok_or_else(|| unknown(accounts, address))?;
        let known = || match admit(accounts, port, route, &source, what) {
            Err(Denied::NoDestination) => None,
            decided => Some(decided),
        };
        accounts.soon(DESTINATION_PATIENCE, known).await.unwrap_or(Err(Denied::NoDestination))
    };
    counted(port, admitted.await)
}

/// The same at once, for what cannot wait.
pub fn now(
    accounts: &Accounts,
    port: &PortEntry,
    route: Route<'_>,
    address: IpAddr,
    what: What<'_>,
) -> Result<Allowed, Denied> {
    let source = accounts.source(address).ok_or_else(|| unknown(accounts, address));
    counted(port, source.and_then(|source| admit(accounts, port, route, &source, what)))
}

fn counted(port: &PortEntry, admitted: Result<Allowed, Denied>) -> Result<Allowed, Denied> {
    admitted.inspect_err(|_| port.metrics.denied.inc())
}

/// Whether `source` may send `what` to `port` by `route`, and whose pods may get it.
///
/// Where the traffic is divided every part of it must be allowed: else a request would pass or not by chance.
fn admit(
    accounts: &Accounts,
    port: &PortEntry,
    route: Route<'_>,
    source: &Account,
    what: What<'_>,
) -> Result<Allowed, Denied> {
    let ask = Ask { port: port.port, what };
    let allowed = to(accounts, route.backend, source, &ask)?;
    if let Some(split) = route.split {
        split.each(what.form(), &mut |backend| to(accounts, backend, source, &ask).map(|_| ()))?;
    }
    Ok(allowed)
}

/// What may go to one backend. Where there is no endpoint there is nothing to deny, either.
///
/// Only accounts of the Service's own namespace count: else whoever may write a Service elsewhere, with endpoints by hand, could
/// give an allowed port number to another port of these pods.
fn to(accounts: &Accounts, backend: &Backend, source: &Account, ask: &Ask<'_>) -> Result<Allowed, Denied> {
    let list = backend.endpoints.load();
    let mut allowed = Allowed::default();
    let mut denied = None;
    for destination in &*list.accounts(accounts) {
        match destination {
            Some(destination) if destination.id.namespace != backend.id.service.namespace => {
                denied.get_or_insert(Denied::Foreign);
            }
            Some(destination) if destination.allows(source, ask) => allowed.add(destination),
            Some(destination) => {
                denied = Some(Denied::NotAllowed {
                    source: source.id.clone(),
                    destination: destination.id.clone(),
                    port: ask.port,
                });
            }
            None => {
                denied.get_or_insert(Denied::NoDestination);
            }
        }
    }
    match denied {
        Some(denied) if allowed.first.is_none() => Err(denied),
        _ => Ok(allowed),
    }
}

/// Picks an endpoint of `list` that may get it; of any when `allowed` is `None`.
pub fn pick(
    accounts: &Accounts,
    list: &EndpointList,
    allowed: Option<&Allowed>,
    tried: &[SocketAddr],
) -> Option<Outstanding> {
    let Some(allowed) = allowed else { return list.pick(tried) };
    if list.accounts(accounts).iter().all(|account| allowed.has(account.as_deref())) {
        return list.pick(tried);
    }
    list.pick_where(tried, |endpoint| allowed.has(accounts.at(endpoint.address.ip()).as_deref()))
}

/// Whether what goes on by `port` between `source` and the endpoint at `endpoint` is still allowed.
pub fn still(
    accounts: &Accounts,
    port: &PortEntry,
    source: IpAddr,
    endpoint: IpAddr,
    what: What<'_>,
) -> bool {
    match (accounts.source(source), accounts.at(endpoint)) {
        (Some(source), Some(destination)) => {
            // The parts of a split are of the same namespace.
            destination.id.namespace == port.service.namespace
                && destination.allows(&source, &Ask { port: port.port, what })
        }
        _ => false,
    }
}
