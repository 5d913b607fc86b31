//! One schedule, from its seed to its end.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::{sleep, sleep_until};

use crate::replica::{self, Running};
use crate::simulated::chart;
use crate::world::{Order, Process, Shared, Stimulus, World};

/// How long things may take until they are as they should be, once faults and users have come to an end. The longest that the
/// operator itself waits is five minutes, for a look at the CA.
const PATIENCE: u64 = 400_000;
/// No write for so long means that none will come: everything is looked at every 20 s.
const AT_REST: u64 = 25_000;
/// So many writes have no good reason.
const TOO_MANY_WRITES: u64 = 5000;

/// What became of a schedule.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    pub(crate) digest: u64,
    /// Simulated milliseconds.
    pub(crate) length: u64,
    pub(crate) writes: u64,
    pub(crate) behind: u64,
    pub(crate) processes: u64,
}

/// Runs the schedule of `seed`. With `verbose` everything that happens is noted in words.
pub(crate) fn run(seed: u64, verbose: bool) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let done = catch_unwind(AssertUnwindSafe(|| runtime.block_on(drive(seed, verbose))));
    done.unwrap_or_else(|_| Outcome {
        violations: vec!["the model panicked".to_owned()],
        ..Outcome::default()
    })
}

/// What a schedule is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Chaos,
    /// Everything is to be as it should be, and to stay so.
    Rest,
    /// The `MeshConfigs` are deleted; nothing is to be left.
    Removal,
}

struct Driver {
    world: Shared,
    running: BTreeMap<Process, Running>,
    act: Act,
    since: u64,
}

async fn drive(seed: u64, verbose: bool) -> Outcome {
    let mut world = World::new(seed, verbose);
    chart::install(&mut world.store);
    world.prepare();
    let mut driver =
        Driver { world: Shared::new(world), running: BTreeMap::new(), act: Act::Chaos, since: 0 };
    while driver.turn().await {}
    driver.end().await
}

impl Driver {
    /// Lets one thing happen. Returns whether there is more to come.
    async fn turn(&mut self) -> bool {
        let (next, now, wake) = {
            let mut world = self.world.lock();
            world.look_around();
            (world.next_time(), world.now(), world.wake.clone())
        };
        self.note_ends();
        match next {
            Some(at) if at <= now => {
                self.world.lock().step();
                self.carry_out_orders();
                let more = self.move_on();
                // Until nobody has anything to do.
                sleep(Duration::from_millis(1)).await;
                more
            }
            Some(at) => {
                let until = self.world.lock().instant(at);
                tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = sleep_until(until) => {}
                }
                true
            }
            None => {
                self.world.lock().law.broken("nothing is about to happen any more".to_owned());
                false
            }
        }
    }

    fn carry_out_orders(&mut self) {
        let orders = std::mem::take(&mut self.world.lock().orders);
        for order in orders {
            match order {
                Order::Start(place) => {
                    if self.world.lock().alive_at(place).is_none() {
                        let (process, running) = replica::start(&self.world, place);
                        self.running.insert(process, running);
                    }
                }
                Order::Stop(process) => {
                    if let Some(running) = self.running.get(&process) {
                        running.stop.send_replace(true);
                    }
                }
                Order::Kill(process) => {
                    if let Some(running) = self.running.remove(&process) {
                        running.task.abort();
                    }
                }
            }
        }
    }

    /// Processes that have ended by themselves: well, if they were told to.
    fn note_ends(&mut self) {
        let ended: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| running.task.is_finished())
            .map(|(process, _)| *process)
            .collect();
        for process in ended {
            let mut world = self.world.lock();
            if !world.replicas[process].stopping {
                let how = format!("{} ended by itself", world.replicas[process].pod);
                world.law.broken(how);
            }
            world.dies(process);
            drop(world);
            self.carry_out_orders();
        }
    }

    /// From one act to the next. Returns whether there is one.
    fn move_on(&mut self) -> bool {
        let mut world = self.world.lock();
        let now = world.now();
        if !world.law.violations.is_empty() {
            return false;
        }
        if world.law.writes > TOO_MANY_WRITES {
            let last = world.law.last_line.clone();
            world.law.broken(format!("there is no end of writes: {last}"));
            return false;
        }
        if self.act == Act::Chaos {
            if world.calm {
                (self.act, self.since) = (Act::Rest, now);
                world.after(1000, "look", Stimulus::Look);
            }
            return true;
        }
        if !world.time_to_look() {
            return true;
        }
        world.after(2500, "look", Stimulus::Look);
        let settled = world.settled();
        let quiet = now.saturating_sub(world.law.last_write.max(self.since)) >= AT_REST;
        match settled {
            Ok(()) if quiet && self.act == Act::Rest => {
                world.remove_meshes();
                (self.act, self.since) = (Act::Removal, now);
                true
            }
            Ok(()) if quiet => false,
            Ok(()) if now - self.since > PATIENCE => {
                let last = world.law.last_line.clone();
                world.law.broken(format!("all is well, but writes go on: {last}"));
                false
            }
            Err(why) if now - self.since > PATIENCE => {
                world.law.broken(format!("not settled in the end: {why}"));
                false
            }
            _ => true,
        }
    }

    async fn end(self) -> Outcome {
        for running in self.running.values() {
            running.task.abort();
        }
        // Their tasks are dropped.
        sleep(Duration::from_millis(1)).await;
        let mut world = self.world.lock();
        Outcome {
            violations: std::mem::take(&mut world.law.violations),
            trace: world.trace.lines.take().unwrap_or_default(),
            digest: world.trace.digest,
            length: world.now(),
            writes: world.law.writes,
            behind: world.law.behind,
            processes: world.replicas.len() as u64,
        }
    }
}
