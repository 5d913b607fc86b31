//! Whose turn it is: tests share a mesh, and some need it otherwise than others do. Those of one party run side by side, and
//! one that must be alone runs alone. Who waits is let in before the party changes, so that the mesh is changed seldom.

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
    /// Those that run now.
    running: Mutex<Option<(Party, usize)>>,
    ended: Condvar,
}

/// A test's turn, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Nobody runs.
    pub const fn new() -> Self {
        Self { running: Mutex::new(None), ended: Condvar::new() }
    }

    /// Waits for the turn of a test of `party`.
    pub fn take(&self, party: Party) -> Turn<'_> {
        let mut running = self.running();
        loop {
            match &mut *running {
                None => {
                    *running = Some((party, 1));
                    return Turn(self);
                }
                Some((now, tests)) if *now == party && party != Party::Alone => {
                    *tests += 1;
                    return Turn(self);
                }
                Some(_) => running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<(Party, usize)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running();
        *running = running.take().filter(|(_, tests)| *tests > 1).map(|(party, tests)| (party, tests - 1));
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
}
