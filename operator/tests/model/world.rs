//! One schedule's world: the objects, who is alive, and everything that is about to happen, in the order of simulated time. What
//! happens at one moment happens one after the other, each time until nobody has anything to do any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use weft_operator::dns::check::Answer as DnsAnswer;
use weft_operator::lease::Fence;
use weft_operator::publish::Publisher;

use crate::api::{Pending, Watch};
use crate::cluster::DnsPod;
use crate::dice::{Dice, hash_of};
use crate::law::Law;
use crate::proxy::Proxy;
use crate::simulated::paths::{COREDNS, DAEMONSET, OURS, key, service};
use crate::simulated::store::{Change, Store};
use crate::weather::Weather;

/// Where a replica runs.
pub(crate) type Place = usize;
/// A replica's process; one that comes after it at the same place is another.
pub(crate) type Process = usize;

/// Something that is about to happen.
#[derive(Debug)]
pub(crate) enum Stimulus {
    /// A request reaches the API server.
    Arrive(u64),
    /// Its answer reaches the replica.
    Return(u64),
    /// A watch is told what is new.
    Deliver(u64),
    /// A question reaches a DNS pod.
    AskDns(String, String, oneshot::Sender<DnsAnswer>),
    /// A question reaches a proxy.
    AskProxy(String, Vec<u16>, oneshot::Sender<Option<weft_config::status::ProxyStatus>>),
    /// A user does something.
    User(u64),
    Crash(Place),
    /// The end of the patience with a process that was told to stop.
    Kill(Process),
    Stop(Place),
    Start(Place),
    /// The DaemonSet's controller and the kubelets.
    Kubelets,
    /// The controller of `EndpointSlices`.
    Endpoints,
    /// A proxy takes what the replica it is connected to has for it, or connects.
    ProxyTakes(usize),
    /// The last connection to a listener that was closed has left.
    ProxyLetsGo(usize, u16),
    DnsReloads(usize),
    CollectGarbage,
    /// Faults and users come to an end.
    Calm,
    /// Time to look.
    Look,
}

/// What only the driver can do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Start(Place),
    Stop(Process),
    Kill(Process),
}

/// A replica's process.
pub(crate) struct Replica {
    pub(crate) place: Place,
    pub(crate) pod: String,
    pub(crate) alive: bool,
    pub(crate) died: u64,
    pub(crate) stopping: bool,
    pub(crate) fence: Fence,
    /// When its fence was seen open last.
    pub(crate) seen_open: u64,
    pub(crate) publisher: Publisher,
    pub(crate) versions: watch::Receiver<u64>,
}

/// What happened, in words when somebody wants to read it, and as a digest in any case.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) lines: Option<Vec<String>>,
    pub(crate) digest: u64,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) calm: bool,
    pub(crate) store: Store,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) places: usize,
    pub(crate) requests: BTreeMap<u64, Pending>,
    pub(crate) watches: BTreeMap<u64, Watch>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) nodes: usize,
    pub(crate) dns: Vec<DnsPod>,
    pub(crate) law: Law,
    pub(crate) orders: Vec<Order>,
    pub(crate) trace: Trace,
    pub(crate) crashes: u64,
    pub(crate) wake: Arc<Notify>,
    /// Somebody looks now.
    looking: bool,
    start: Instant,
    queue: BTreeMap<(u64, u64, u64), Stimulus>,
    /// What is in the queue at most once.
    queued: BTreeSet<&'static str>,
    ids: u64,
    counts: HashMap<u64, u32>,
    /// Up to which version of the store everybody has been woken.
    woken: u64,
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// With nothing in it.
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let dice = Dice::new(seed);
        let mut throw = dice.on("size");
        let places = if throw.in_a_thousand(700) { 2 } else { 1 };
        Self {
            dice,
            weather: Weather::of(dice, places, 40_000),
            calm: false,
            store: Store::default(),
            replicas: Vec::new(),
            places,
            requests: BTreeMap::new(),
            watches: BTreeMap::new(),
            proxies: Vec::new(),
            nodes: usize::try_from(throw.between(1, 3)).unwrap(),
            dns: Vec::new(),
            law: Law::default(),
            orders: Vec::new(),
            trace: Trace { lines: verbose.then(Vec::new), digest: 0 },
            crashes: 0,
            wake: Arc::default(),
            looking: false,
            start: Instant::now(),
            queue: BTreeMap::new(),
            queued: BTreeSet::new(),
            ids: 0,
            counts: HashMap::new(),
            woken: 0,
        }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When `at` is.
    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.start + std::time::Duration::from_millis(at)
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// How often this was asked of `what` before.
    pub(crate) fn nth(&mut self, what: impl Hash) -> u32 {
        let count = self.counts.entry(hash_of(what)).or_default();
        *count += 1;
        *count
    }

    /// Notes what happens. `line` is for people.
    pub(crate) fn note(&mut self, what: impl Hash, line: impl FnOnce(&Self) -> String) {
        let now = self.now();
        self.trace.digest = hash_of((self.trace.digest, now, what));
        if let Some(mut lines) = self.trace.lines.take() {
            lines.push(format!("{:>4}.{:03} {}", now / 1000, now % 1000, line(self)));
            self.trace.lines = Some(lines);
        }
    }

    /// In `wait` milliseconds `stimulus` happens; `name` says what comes first of what happens at one moment.
    pub(crate) fn after(&mut self, wait: u64, name: impl Hash, stimulus: Stimulus) {
        let (at, id) = (self.now() + wait.max(1), self.id());
        self.queue.insert((at, hash_of(name), id), stimulus);
        self.wake.notify_one();
    }

    /// The same after a time of chance: at most so many milliseconds when all is calm, as a rule, and when it is stalled.
    pub(crate) fn some_time(&mut self, name: impl Hash + Copy, most: [u64; 3], stimulus: Stimulus) {
        let [calm, usual, stalled] = most;
        let nth = self.nth(name);
        let mut throw = self.dice.on((name, nth));
        let wait = if self.calm {
            throw.between(1, calm)
        } else if throw.in_a_thousand(self.weather.stall) {
            throw.between(1000, stalled)
        } else {
            throw.between(1, usual)
        };
        self.after(wait, name, stimulus);
    }

    /// As [`World::after`], unless `name` is about to happen already.
    pub(crate) fn soon(&mut self, wait: u64, name: &'static str, stimulus: Stimulus) {
        if self.queued.insert(name) {
            self.after(wait, name, stimulus);
        }
    }

    pub(crate) fn next_time(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, ..), _)| *at)
    }

    /// Lets the next thing happen.
    pub(crate) fn step(&mut self) {
        let Some((at, stimulus)) = self.queue.pop_first() else { return };
        // Waits of kube's watches have a jitter. Whose wait began before must have no part in it.
        fastrand::seed(self.dice.on(("jitter", at.0, at.1)).below(u64::MAX));
        self.store.seconds = i64::try_from(self.now() / 1000).unwrap_or(0);
        match stimulus {
            Stimulus::Arrive(id) => self.arrive(id),
            Stimulus::Return(id) => self.give_back(id),
            Stimulus::Deliver(id) => self.deliver(id),
            Stimulus::AskDns(pod, domain, answer) => {
                let said = self.dns_answer(&pod, &domain);
                drop(answer.send(said));
            }
            Stimulus::AskProxy(address, holders_of, answer) => {
                let said = self.proxy_answer(&address, &holders_of);
                drop(answer.send(said));
            }
            Stimulus::User(step) => self.user(step),
            Stimulus::Crash(place) => self.crash(place),
            Stimulus::Kill(process) => self.dies(process),
            Stimulus::Stop(place) => self.stop(place),
            Stimulus::Start(place) => {
                if self.alive_at(place).is_none() {
                    self.orders.push(Order::Start(place));
                }
            }
            Stimulus::Kubelets => {
                self.queued.remove("kubelets");
                self.kubelets();
            }
            Stimulus::Endpoints => {
                self.queued.remove("endpoints");
                self.endpoints();
            }
            Stimulus::ProxyTakes(proxy) => self.proxy_takes(proxy),
            Stimulus::ProxyLetsGo(proxy, port) => self.proxy_lets_go(proxy, port),
            Stimulus::DnsReloads(pod) => self.dns_reloads(pod),
            Stimulus::CollectGarbage => {
                self.queued.remove("garbage");
                self.store.collect_garbage();
                self.end_with_their_pods();
            }
            Stimulus::Calm => self.come_to_rest(),
            Stimulus::Look => self.looking = true,
        }
        self.wake_watchers();
    }

    /// Whoever waits for a change of the store gets to know of it, some time.
    fn wake_watchers(&mut self) {
        let version = self.store.version();
        if version == self.woken {
            return;
        }
        let mut throw = self.dice.on(("lag", version));
        let mut waiting = Vec::new();
        let (mut kubelets, mut endpoints, mut dns, mut garbage) = (false, false, false, false);
        let proxies = service(OURS, "weft-proxy");
        for happened in self.store.since(self.woken) {
            for (id, watch) in &mut self.watches {
                if !watch.scheduled && happened.told(&watch.target, &watch.selector).is_some() {
                    watch.scheduled = true;
                    waiting.push(*id);
                }
            }
            kubelets |= happened.key == key(DAEMONSET);
            endpoints |= happened.key == key(&proxies);
            dns |= happened.key == key(COREDNS);
            // Somebody's owner goes, or somebody comes whose owner has gone.
            let owners = |object: &Value| object["metadata"]["ownerReferences"].clone();
            let owned = happened.before.as_deref().map(owners) != Some(owners(&happened.object));
            garbage |= happened.change == Change::Deleted || owned;
        }
        self.woken = version;
        for id in waiting {
            self.schedule_delivery(id);
        }
        let mut lag = |calm: u64, else_: u64| throw.between(1, if self.calm { calm } else { else_ });
        let lags = [lag(100, 2000), lag(100, 1500), lag(500, 8000)];
        if kubelets {
            self.soon(lags[0], "kubelets", Stimulus::Kubelets);
        }
        if endpoints {
            self.soon(lags[1], "endpoints", Stimulus::Endpoints);
        }
        if garbage {
            self.soon(lags[2], "garbage", Stimulus::CollectGarbage);
        }
        for pod in (0..self.dns.len()).filter(|_| dns) {
            let wait =
                self.dice.on(("reload", version, pod)).between(100, if self.calm { 2000 } else { 30_000 });
            self.after(wait, ("reload", pod), Stimulus::DnsReloads(pod));
        }
    }

    /// Whether it is time to look; asked once each time.
    pub(crate) fn time_to_look(&mut self) -> bool {
        std::mem::take(&mut self.looking)
    }

    /// The process that runs at `place`.
    pub(crate) fn alive_at(&self, place: Place) -> Option<Process> {
        self.replicas.iter().rposition(|replica| replica.place == place && replica.alive)
    }

    /// The process is no more: nothing of it runs on.
    pub(crate) fn dies(&mut self, process: Process) {
        let now = self.now();
        let replica = &mut self.replicas[process];
        if !std::mem::replace(&mut replica.alive, false) {
            return;
        }
        replica.died = now;
        let place = replica.place;
        self.orders.push(Order::Kill(process));
        self.watches.retain(|_, watch| watch.process != process);
        let nth = self.nth(("start", place));
        let wait = self.dice.on(("restart", place, nth)).between(1500, if self.calm { 2500 } else { 15_000 });
        self.after(wait, ("start", place), Stimulus::Start(place));
    }

    fn crash(&mut self, place: Place) {
        let Some(process) = self.alive_at(place) else { return };
        self.note(("crash", place), |world| format!("{} is killed", world.replicas[process].pod));
        self.dies(process);
    }

    fn stop(&mut self, place: Place) {
        let Some(process) = self.alive_at(place) else { return };
        self.note(("stop", place), |world| format!("{} is told to stop", world.replicas[process].pod));
        self.replicas[process].stopping = true;
        self.orders.push(Order::Stop(process));
        // The kubelet has patience with it, or the node has not.
        let nth = self.nth(("grace", place));
        let grace = *self.dice.on(("grace", place, nth)).of(&[3000, 60_000]).unwrap();
        self.after(grace, ("kill", place), Stimulus::Kill(process));
    }

    /// What nobody tells of: who leads, and which proxies have something new to take.
    pub(crate) fn look_around(&mut self) {
        let open: Vec<_> = (0..self.replicas.len())
            .filter(|process| self.replicas[*process].alive && self.replicas[*process].fence.is_open())
            .collect();
        let now = self.now();
        for process in &open {
            self.replicas[*process].seen_open = now;
        }
        if open.len() > 1 {
            let names: Vec<_> = open.iter().map(|process| self.replicas[*process].pod.clone()).collect();
            self.law.broken(format!("two replicas may write: {}", names.join(" and ")));
        }
        if let Some(leader) = open.first().copied()
            && self.law.leader.replace(leader) != Some(leader)
        {
            let pod = self.replicas[leader].pod.clone();
            self.note(("leads", &pod), |_| format!("{pod} leads"));
        }
        self.proxies_look();
    }

    /// Faults and users come to an end, and what users have broken they repair.
    fn come_to_rest(&mut self) {
        self.note("calm", |_| "--- faults and users come to an end ---".to_owned());
        self.calm = true;
        self.users_repair();
        for place in 0..self.places {
            if self.alive_at(place).is_none() {
                self.after(1500, ("start", place), Stimulus::Start(place));
            }
        }
    }
}
