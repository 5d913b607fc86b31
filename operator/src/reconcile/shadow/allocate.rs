//! A listen port for a port of a Service: the one it has, a new one, or the one that the proxies hold for it. They are asked when that is
//! in doubt. Whose it is then is for [`crate::ports`] to keep.

use weft_config::ServiceId;

use super::Worker;
use super::record::holders;
use crate::ports::{HeldFor, NoPort, Question};
use crate::reconcile::proxies::{self, Told};

/// For whom they hold how many listen ports the proxies are asked at a time.
const ASKED_AT_A_TIME: usize = 500;

/// What the proxies have said in a round. Asking again would not tell more.
pub(super) struct Answers {
    question: Question,
    /// Which listen ports they hold: all of them have said it.
    complete: bool,
    /// For whom, when that was asked, too.
    held_for: Option<HeldFor>,
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
        let Answers { question, held_for, .. } = self.asked.as_ref()?;
        self.allocator.reclaim(question, held_for.as_ref()?, service, port)
    }

    /// Asks the proxies which listen ports they hold, or then for whom. False: that was asked, or one is silent.
    async fn ask_further(&mut self) -> bool {
        match self.asked.take() {
            None => {
                self.pace.was_not_looked_at();
                let question = self.allocator.question();
                let held = self.ask(Vec::new()).await.and_then(|told| proxies::held_ports(&told));
                if let Some(held) = &held {
                    self.allocator.confirm(&question, held);
                }
                self.asked = Some(Answers { question, complete: held.is_some(), held_for: None });
                true
            }
            Some(Answers { question, complete: true, held_for: None }) => {
                let in_doubt: Vec<_> = self.allocator.in_doubt().take(ASKED_AT_A_TIME).collect();
                let held_for = self.ask(in_doubt).await.and_then(|told| proxies::held_for(&told));
                if let Some(held_for) = &held_for {
                    self.allocator.settle_claims(&question, held_for);
                }
                let answered = held_for.is_some();
                self.asked = Some(Answers { question, complete: answered, held_for });
                answered
            }
            answers => {
                self.asked = answers;
                false
            }
        }
    }

    async fn ask(&self, holders_of: Vec<u16>) -> Option<Vec<Told>> {
        match holders(self.ctx).await {
            Ok(holders) => Some(self.ctx.outside.ask_proxies(holders, holders_of).await),
            Err(error) => {
                tracing::warn!(%error, "the pods of the proxies cannot be listed");
                None
            }
        }
    }
}
