//! How bad a schedule's surroundings are: which faults, and how often. Most schedules have some of them, few have all.

use crate::dice::Dice;

/// Chances are out of a thousand, of each request or each delivery of a watch.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// The API server refuses, before it has done anything.
    pub(crate) refuse: u64,
    /// A conflict although nobody else wrote: somebody who wrote and took it back.
    pub(crate) conflict: u64,
    /// The connection breaks before the request has arrived.
    pub(crate) lose: u64,
    /// The request is carried out, but its answer never comes.
    pub(crate) ambiguous: u64,
    /// The request is on its way for long.
    pub(crate) slow: u64,
    /// A watch says nothing for long.
    pub(crate) stall: u64,
    /// A watch ends.
    pub(crate) cut: u64,
    /// A watch that comes back is told 410.
    pub(crate) gone: u64,
    /// The replica that writes dies, before or after the write has landed.
    pub(crate) crash_at_write: u64,
    /// Proxies and DNS pods do not answer.
    pub(crate) deaf: u64,
    /// How many crashes there may be at all.
    pub(crate) crashes: u64,
    /// Times within which the API server is away altogether.
    pub(crate) outages: Vec<(u64, u64)>,
    /// Times within which one place has no way to the API server.
    pub(crate) partitions: Vec<(usize, u64, u64)>,
}

impl Weather {
    pub(crate) fn of(dice: Dice, replicas: usize, length: u64) -> Self {
        let mut throw = dice.on("weather");
        let mut some =
            |likely: u64, most: u64| if throw.in_a_thousand(likely) { throw.between(1, most) } else { 0 };
        let mut weather = Self {
            refuse: some(500, 60),
            conflict: some(400, 80),
            lose: some(500, 60),
            ambiguous: some(500, 80),
            slow: some(500, 60),
            stall: some(500, 150),
            cut: some(500, 80),
            gone: some(400, 500),
            crash_at_write: some(500, 60),
            deaf: some(400, 200),
            crashes: some(700, 4),
            outages: Vec::new(),
            partitions: Vec::new(),
        };
        let mut throw = dice.on("outages");
        let window = |throw: &mut crate::dice::Throw| {
            let from = throw.below(length);
            (from, from + throw.between(500, 40_000))
        };
        if throw.in_a_thousand(150) {
            weather.outages.push(window(&mut throw));
        }
        while throw.in_a_thousand(250) && weather.partitions.len() < 3 {
            let (from, until) = window(&mut throw);
            let place = usize::try_from(throw.below(replicas as u64)).unwrap_or(0);
            weather.partitions.push((place, from, until));
        }
        weather
    }

    /// Whether requests from `place` can reach the API server at `now`.
    pub(crate) fn reachable(&self, place: usize, now: u64) -> bool {
        let within = |from: u64, until: u64| (from..until).contains(&now);
        !self.outages.iter().any(|(from, until)| within(*from, *until))
            && !self
                .partitions
                .iter()
                .any(|(cut_off, from, until)| *cut_off == place && within(*from, *until))
    }
}
