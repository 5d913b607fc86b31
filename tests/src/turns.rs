//! Whose turn it is: tests share a mesh, and some need it otherwise than others do. Those of one party run side by side, and
//! one that must be alone runs alone: soon, since a test that waits keeps a thread from running others.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// With whom a test may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// With nobody.
    Alone,
    /// With those that keep to their own namespace on a mesh as it is installed.
    AsInstalled,
    /// With those that keep to their own namespace while nothing passes but what is allowed.
    UnderAccessControl,
}

/// The turns of one mesh.
#[derive(Debug)]
pub struct Turns {
    now: Mutex<Now>,
    ended: Condvar,
}

#[derive(Debug)]
struct Now {
    /// Those that run, and how many they are.
    running: Option<(Party, usize)>,
    /// How many wait to be alone.
    want_alone: usize,
}

/// A test's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Nobody runs.
    pub const fn new() -> Self {
        Self { now: Mutex::new(Now { running: None, want_alone: 0 }), ended: Condvar::new() }
    }

    /// Waits for the turn of a test of `party`.
    pub fn take(&self, party: Party) -> Turn<'_> {
        let mut now = self.now();
        let alone = party == Party::Alone;
        now.want_alone += usize::from(alone);
        loop {
            let tests = match now.running {
                None if alone || now.want_alone == 0 => Some(1),
                Some((running, tests)) if running == party && !alone && now.want_alone == 0 => {
                    Some(tests + 1)
                }
                _ => None,
            };
            if let Some(tests) = tests {
                now.want_alone -= usize::from(alone);
                now.running = Some((party, tests));
                return Turn(self);
            }
            now = self.ended.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut now = self.0.now();
        let left = |(party, tests)| (tests > 1).then_some((party, tests - 1));
        now.running = now.running.and_then(left);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn parties_keep_apart_and_who_is_alone_is_so() {
        use Party::{Alone, AsInstalled, UnderAccessControl};
        for (first, second, together) in [
            (AsInstalled, AsInstalled, true),
            (UnderAccessControl, UnderAccessControl, true),
            (AsInstalled, UnderAccessControl, false),
            (AsInstalled, Alone, false),
            (Alone, Alone, false),
            (Alone, AsInstalled, false),
        ] {
            let turns = Turns::new();
            let (sender, entered) = channel();
            std::thread::scope(|scope| {
                let turn = turns.take(first);
                scope.spawn(|| {
                    let _turn = turns.take(second);
                    sender.send(()).unwrap();
                });
                let wait = Duration::from_millis(if together { 5000 } else { 50 });
                assert_eq!(entered.recv_timeout(wait).is_ok(), together, "{first:?} and {second:?}");
                drop(turn);
                if !together {
                    entered.recv_timeout(Duration::from_secs(5)).unwrap();
                }
            });
        }
    }

    #[test]
    fn who_wants_to_be_alone_does_not_wait_for_those_who_come_later() {
        let turns = Turns::new();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let first = turns.take(Party::AsInstalled);
            scope.spawn(|| {
                let _turn = turns.take(Party::Alone);
                order.lock().unwrap().push("alone");
            });
            while turns.now().want_alone == 0 {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                let _turn = turns.take(Party::AsInstalled);
                order.lock().unwrap().push("later");
            });
            drop(first);
        });
        assert_eq!(order.into_inner().unwrap(), ["alone", "later"]);
    }
}
