//! A replica: the operator itself, with this world around it.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use weft_config::status::ProxyStatus;
use weft_operator::apply::Writer;
use weft_operator::context::Context;
use weft_operator::dns::check::Answer;
use weft_operator::index::{Index, ProxyPod};
use weft_operator::lease::Fence;
use weft_operator::outside::Outside;
use weft_operator::publish::Publisher;
use weft_operator::reconcile::proxies::Told;
use weft_operator::run::{self, Ended};

use crate::api::Way;
use crate::dice::hash_of;
use crate::simulated::paths::OURS;
use crate::world::{Place, Process, Replica, Shared, Stimulus};

/// A process that runs.
pub(crate) struct Running {
    pub(crate) task: JoinHandle<Result<(), Ended>>,
    pub(crate) stop: watch::Sender<bool>,
}

/// Starts a process at `place`.
pub(crate) fn start(world: &Shared, place: Place) -> (Process, Running) {
    let mut state = world.lock();
    let process = state.replicas.len();
    // A container that is started again keeps its pod's name; a pod that is replaced gets another.
    let same = state.dice.on(("same pod", process)).in_a_thousand(500);
    let before = state.replicas.iter().rfind(|replica| replica.place == place);
    let pod = match before.filter(|_| same) {
        Some(before) => before.pod.clone(),
        None => format!("operator-{place}-{process}"),
    };
    let (fence, publisher, index) = (Fence::default(), Publisher::default(), Index::new(OURS));
    state.replicas.push(Replica {
        place,
        pod: pod.clone(),
        alive: true,
        died: 0,
        stopping: false,
        fence: fence.clone(),
        seen_open: 0,
        versions: publisher.versions(),
        publisher: publisher.clone(),
    });
    state.note(("starts", &pod), |_| format!("{pod} starts"));
    drop(state);
    let client = kube::Client::new(Way { world: world.clone(), process }, OURS);
    let ctx = Context {
        writer: Writer::new(client.clone(), fence.clone()),
        client,
        index,
        publisher,
        outside: Arc::new(Questions { world: world.clone() }),
        namespace: OURS.into(),
        pod: pod.as_str().into(),
        proxy_image: "weft-proxy:test".into(),
        smi_metrics: false,
        metrics: Arc::default(),
        contact: weft_operator::lease::Contact::default(),
    };
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(run::replica(ctx, fence, stopping, std::time::Duration::ZERO));
    (process, Running { task, stop })
}

/// Asks the simulated pods.
struct Questions {
    world: Shared,
}

impl Questions {
    /// How long a question to `whom` takes.
    fn way(&self, whom: &str) -> (u64, u64) {
        let mut world = self.world.lock();
        let nth = world.nth(("question", whom));
        let mut throw = world.dice.on(("question", whom, nth));
        let wait = if !world.calm && throw.in_a_thousand(100) {
            throw.between(30, 900)
        } else {
            throw.between(1, 20)
        };
        (wait, hash_of((whom, nth)))
    }
}

impl Outside for Questions {
    fn ask_dns<'a>(&'a self, server: SocketAddr, domain: &'a str) -> BoxFuture<'a, Answer> {
        let (send, answer) = oneshot::channel();
        let pod = server.ip().to_string();
        let (wait, name) = self.way(&pod);
        self.world.lock().after(wait, name, Stimulus::AskDns(pod, domain.to_owned(), send));
        answer.map(|said| said.unwrap_or(Answer::Silent("gone".to_owned()))).boxed()
    }

    /// There is no cache of DNS on the nodes here.
    fn own_dns(&self) -> Option<SocketAddr> {
        None
    }

    fn ask_proxies(&self, pods: Vec<ProxyPod>, holders_of: Vec<u16>) -> BoxFuture<'_, Vec<Told>> {
        let ask = |pod: ProxyPod| {
            let (send, answer) = oneshot::channel::<Option<ProxyStatus>>();
            let (wait, name) = self.way(&pod.address.to_string());
            let ask = Stimulus::AskProxy(pod.address.to_string(), holders_of.clone(), send);
            self.world.lock().after(wait, name, ask);
            answer.map(|said| (pod, said.ok().flatten()))
        };
        join_all(pods.into_iter().map(ask)).boxed()
    }

    fn time(&self) -> Timestamp {
        self.world.lock().store.time()
    }
}
