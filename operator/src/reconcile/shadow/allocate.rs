//! A listen port for a port of a Service: the one it has, a new one, or the one its shadow says when nobody else can have it. Whose
//! it is then is for [`crate::ports`] to keep.

use weft_config::{Resource, ServiceId};

use super::Worker;
use super::record::holders;
use crate::ports::{NoPort, Question};
use crate::publish::Owner;
use crate::reconcile::proxies::{self, Told};

/// What the proxies have said that they hold; nobody, when they could not be asked.
pub(super) struct Answers {
    question: Question,
    told: Option<Vec<Told>>,
}

impl Worker<'_> {
    /// A listen port; when the free ones are in doubt the proxies are asked, once in a round.
    pub(super) async fn allocate(&mut self, service: &ServiceId, port: u16) -> Result<u16, NoPort> {
        let in_doubt = match self.allocator.allocate(service, port) {
            Err(in_doubt @ NoPort::InDoubt(..)) => in_doubt,
            other => return other,
        };
        if self.asked.is_none() {
            self.asked = Some(self.ask().await);
            self.pace.was_not_looked_at();
        }
        match self.allocator.allocate(service, port) {
            Err(NoPort::InDoubt(..)) => self.reclaim(service, port).ok_or(in_doubt),
            other => other,
        }
    }

    async fn ask(&mut self) -> Answers {
        let question = self.allocator.question();
        let told = match holders(self.ctx).await {
            Ok(holders) => Some(self.ctx.outside.ask_proxies(holders).await),
            Err(error) => {
                tracing::warn!(%error, "the pods of the proxies cannot be listed");
                None
            }
        };
        if let Some(held) = told.as_deref().and_then(proxies::held_ports) {
            self.allocator.confirm(&question, &held);
        }
        Answers { question, told }
    }

    /// The listen port that the shadow of `service` says, when it is in doubt only because proxies hold it, for just that port. It had
    /// given it back a moment ago, or the record had it as another's, whose shadow somebody had given the same, and that one has given
    /// it back.
    fn reclaim(&mut self, service: &ServiceId, port: u16) -> Option<u16> {
        let Answers { question, told } = self.asked.as_ref()?;
        let shadow = self.ctx.index.shadow(service)?;
        let (_, listen_port) = *shadow.ports.iter().find(|(one, _)| *one == port)?;
        if !self.allocator.is_in_doubt(question, listen_port) {
            return None;
        }
        let publisher = &self.ctx.publisher;
        let carried = publisher.resources_of(&Owner::Service(service.clone())).into_iter().find(|entry| {
            let Resource::Service(carried) = &*entry.resource else { return false };
            carried.ports.iter().any(|one| (one.port, one.listen_port) == (port, listen_port))
        })?;
        // A proxy has a listen port for one Service, and refuses a second that wants it.
        let not_for_another = |(_, status): &Told| {
            let status = status.as_ref();
            status.is_some_and(|status| {
                !status.listen_ports.contains(&listen_port) || publisher.is_held(&status.digest, &carried)
            })
        };
        let none_for_another = told.as_ref()?.iter().all(not_for_another);
        (none_for_another && self.allocator.reclaim(question, service, port, listen_port))
            .then_some(listen_port)
    }
}
