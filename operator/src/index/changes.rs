//! What changed since somebody last looked: gathered for each subscriber, given all at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use weft_config::{AccountId, ServiceId};

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Services whose configuration, shadow or annotations may be another now.
    pub services: BTreeSet<ServiceId>,
    /// Services whose endpoints are others now. Apart, since they change far more often and concern nobody but the proxies.
    pub endpoints: BTreeSet<ServiceId>,
    /// Accounts that other pods run as.
    pub accounts: BTreeSet<AccountId>,
    /// Objects of the Service Mesh Interface, or the Services they are about: what becomes of them may be another.
    pub policies: bool,
}

impl Changed {
    /// Services only.
    pub fn services(services: impl IntoIterator<Item = ServiceId>) -> Self {
        Self { services: services.into_iter().collect(), ..Self::default() }
    }

    /// The endpoints of one Service only.
    pub fn endpoints(service: ServiceId) -> Self {
        Self { endpoints: BTreeSet::from([service]), ..Self::default() }
    }

    /// Whether nothing did.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.endpoints.is_empty() && self.accounts.is_empty() && !self.policies
    }

    /// This and `other`.
    pub fn add(&mut self, other: Self) {
        self.services.extend(other.services);
        self.endpoints.extend(other.endpoints);
        self.accounts.extend(other.accounts);
        self.policies |= other.policies;
    }
}

/// What a subscriber wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// Services, but not their endpoints.
    Services,
    /// The endpoints of these Services.
    EndpointsOf(BTreeSet<ServiceId>),
    /// Policies.
    Policies,
    /// Everything.
    Everything,
}

#[derive(Debug)]
pub(super) struct Subscriber {
    about: About,
    /// `None`: nothing since the last look.
    changed: Mutex<Option<Changed>>,
    wake: Notify,
}

impl Subscriber {
    /// Its first look gives `first`, at once even when there is nothing in it.
    pub(super) fn new(about: About, first: &Changed) -> Arc<Self> {
        let subscriber = Self { about, changed: Mutex::new(Some(Changed::default())), wake: Notify::new() };
        subscriber.note(first);
        Arc::new(subscriber)
    }

    pub(super) fn note(&self, changed: &Changed) {
        let concerns = match &self.about {
            About::Services => Changed::services(changed.services.iter().cloned()),
            About::EndpointsOf(services) => Changed {
                endpoints: changed.endpoints.intersection(services).cloned().collect(),
                ..Changed::default()
            },
            About::Policies => Changed { policies: changed.policies, ..Changed::default() },
            About::Everything => changed.clone(),
        };
        if !concerns.is_empty() {
            self.changed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().add(concerns);
            self.wake.notify_one();
        }
    }
}

/// What changed since the last look.
pub struct Changes(pub(super) Arc<Subscriber>);

impl Changes {
    /// Waits until something changed and returns all of it. Cancelling loses nothing.
    pub async fn next(&self) -> Changed {
        loop {
            let changed = std::mem::take(&mut *self.0.changed.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(changed) = changed {
                return changed;
            }
            self.0.wake.notified().await;
        }
    }
}
