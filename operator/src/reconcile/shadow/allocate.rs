//! A listen port for a port of a Service: the one it has, a new one, or the one that the proxies hold for it. They are asked when that is
//! in doubt. Whose it is then is for [`crate::ports`] to keep.

use weft_config::ServiceId;

use super::Worker;
use super::record::holders;
use crate::ports::{HeldFor, NoPort, Question};
use crate::reconcile::proxies::{self, Told};

/// For whom they hold how many listen ports the proxies are asked at a time.
const ASKED_AT_A_TIME: usize = 500;

/// What the proxies have said in a round. Asking the same again would not tell more.
pub(super) enum Answers {
    /// One said nothing.
    Silence,
    /// Which listen ports they hold: asked after this was in doubt.
    Ports(Question),
    /// For whom, too.
    Holders(Question, HeldFor),
}

impl Worker<'_> {
    /// A listen port; what is in doubt the proxies are asked, once in a round.
    pub(super) async fn allocate(&mut self, service: &ServiceId, port: u16) -> Result<u16, NoPort> {
        loop {
            match self.allocator.allocate(service, port) {
                Err(in_doubt) if in_doubt.is_in_doubt() => {
                    if let Some(reclaimed) = self.reclaim(service, port) {
                        return Ok(reclaimed);
                    }
                    if !self.ask_further().await {
                        return Err(in_doubt);
                    }
                }
                other => return other,
            }
        }
    }

    /// The listen port that the proxies hold for just this. Its shadow had given it back a moment ago, or somebody has edited it while
    /// nobody led, and the proxies have refused what came of it.
    fn reclaim(&mut self, service: &ServiceId, port: u16) -> Option<u16> {
        let Some(Answers::Holders(question, held_for)) = &self.asked else { return None };
        self.allocator.reclaim(question, held_for, service, port)
    }

    /// Asks the proxies which listen ports they hold, or then for whom. False: that was asked, or one is silent.
    async fn ask_further(&mut self) -> bool {
        let answers = match self.asked.take() {
            None => self.ask_for_ports().await,
            Some(Answers::Ports(question)) => self.ask_for_holders(question).await,
            Some(asked) => {
                self.asked = Some(asked);
                return false;
            }
        };
        let more = !matches!(answers, Answers::Silence);
        self.asked = Some(answers);
        more
    }

    async fn ask_for_ports(&mut self) -> Answers {
        let question = self.allocator.question();
        let told = self.ask(Vec::new()).await;
        let Some(held) = told.and_then(|told| proxies::held_ports(&told)) else { return Answers::Silence };
        self.allocator.confirm(&question, &held);
        Answers::Ports(question)
    }

    async fn ask_for_holders(&mut self, question: Question) -> Answers {
        let asked: Vec<_> = self.allocator.in_doubt().take(ASKED_AT_A_TIME).collect();
        let told = self.ask(asked.clone()).await;
        let Some(held_for) = told.and_then(|told| proxies::held_for(&told)) else { return Answers::Silence };
        self.allocator.settle_claims(&asked, &question, &held_for);
        Answers::Holders(question, held_for)
    }

    async fn ask(&mut self, holders_of: Vec<u16>) -> Option<Vec<Told>> {
        let told = match holders(self.ctx).await {
            Ok(holders) => Some(self.ctx.outside.ask_proxies(holders, holders_of).await),
            Err(error) => {
                tracing::warn!(%error, "the pods of the proxies cannot be listed");
                None
            }
        };
        self.pace.was_not_looked_at();
        told
    }
}
