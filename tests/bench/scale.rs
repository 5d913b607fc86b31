//! How operator and proxies bear a large cluster. Services are real objects; their pods are not there: five addresses each in
//! an EndpointSlice. One Service has servers, so that a change can be seen by traffic from every node.
//!
//! For each size, smallest first: Services are added until there are so many and all are carried; then changes are timed at
//! rest and under 50 others a second, with kube-proxy and without, and one replica of the operator and one proxy are started anew. `SERVICES=5000` or
//! `SERVICES=1000,2000` name the sizes, `BUSY_SECONDS` is how long the 50 a second last (30). With `KEEP=1` everything stays
//! for a run with more Services; otherwise the Services are deleted in the end.

mod scale {
    pub(crate) mod churn;
    pub(crate) mod figures;
    pub(crate) mod fill;
    pub(crate) mod flips;
}

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use weft_tests::afterwards::afterwards;
use weft_tests::cluster::{self, Cluster};
use weft_tests::metrics::Metrics;
use weft_tests::node::{Embedded, Process};
use weft_tests::wait::{self, Seen, seconds};
use weft_tests::workloads::is_ready;
use weft_tests::{Result, mesh};

use scale::churn::Churn;
use scale::figures::Figures;
use scale::flips::{Flips, Times, percentile};
use scale::{figures, fill};

/// Without `SERVICES`.
const SIZES: [usize; 3] = [1000, 5000, 10_000];
/// Changes that are timed at rest.
const AT_REST: usize = 200;
/// Pause between changes that are timed while others come.
const BETWEEN: Duration = Duration::from_millis(250);
/// How long the operator is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(30);
/// How long kube-proxies are frozen, at most.
const FROZEN: Duration = seconds(120);
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> Result {
    let mut sizes = match std::env::var("SERVICES") {
        Ok(list) => list.split(',').map(|size| size.trim().parse()).collect::<std::result::Result<_, _>>()?,
        Err(_) => SIZES.to_vec(),
    };
    sizes.sort_unstable();
    let keep = std::env::var("KEEP").is_ok_and(|keep| keep == "1");
    let busy = std::env::var("BUSY_SECONDS").map_or(Ok(30), |text| text.parse())?;
    cluster::run(|cluster| async move {
        let embedded =
            Embedded::needed_for("memory and CPU").ok_or("this measurement needs the embedded cluster")?;
        if !(keep && mesh::ready(&cluster, seconds(2)).await.is_ok()) {
            mesh::installed(&cluster).await?;
        }
        let mut bench = Bench { cluster, embedded, figures: Figures::default() };
        for services in sizes {
            bench.fill(services).await?;
            // Only now: nobody keeps a connection to a probe that has nothing to say while thousands of Services are made.
            let mut flips = Flips::start(&bench.cluster).await?;
            bench.measure(services, &mut flips, seconds(busy)).await?;
            flips.end().await?;
            bench.figures.write()?;
            // All shadow Services have another endpoint since a proxy was replaced: Kubernetes writes a slice for each.
            bench.calm().await?;
        }
        if !keep {
            fill::remove(&bench.cluster).await?;
        }
        bench.figures.show();
        Ok(())
    })
}

struct Bench {
    cluster: Cluster,
    embedded: Embedded,
    figures: Figures,
}

impl Bench {
    /// There are so many Services, and all proxies carry them.
    async fn fill(&mut self, services: usize) -> Result {
        let began = Instant::now();
        let before = self.cpu_of_all().await?;
        fill::add(&self.cluster, services).await?;
        eprintln!("{services} Services are there after {:.0} s", began.elapsed().as_secs_f64());
        // Kubernetes needs ever longer for each the more there are: with 10,000, half a second.
        let patience = seconds(600 + u64::try_from(services)?);
        wait::until_every(seconds(1), "all are carried", patience, async || {
            let status = mesh::status(&self.cluster).await?;
            let count = |field: &str| status[field].as_u64().unwrap_or(0);
            let carried = usize::try_from(count("shadowServices"))?;
            let synced = mesh::condition(&status, "ConfigSynced") == Some("True");
            let state = format!("{carried} shadow Services, in sync: {synced}");
            let done = carried >= services && count("shadowServices") == count("services") && synced;
            Ok(Seen::when(done, (), || state))
        })
        .await?;
        let took = began.elapsed();
        self.figures.add(services, "services_carried_s", took.as_secs_f64(), "s");
        let after = self.cpu_of_all().await?;
        let mut spent: Vec<_> = after
            .into_iter()
            .map(|(name, cpu)| (cpu.saturating_sub(before.get(&name).copied().unwrap_or_default()), name))
            .collect();
        spent.sort_unstable_by(|a, b| b.cmp(a));
        let spent = spent.iter().take(8).map(|(cpu, name)| format!("{name} {:.0}", cpu.as_secs_f64()));
        let spent = spent.collect::<Vec<_>>().join(", ");
        eprintln!("all are carried after {:.0} s; CPU seconds meanwhile: {spent}", took.as_secs_f64());
        self.calm().await
    }

    /// What Kubernetes makes of so many objects has come to its end: kube-proxy's rules, `EndpointSlices`.
    async fn calm(&self) -> Result {
        let began = Instant::now();
        let mut last = (Instant::now(), self.cpu_of_all().await?);
        wait::until_every(seconds(3), "the cluster is at rest", seconds(1800), async || {
            let now = (Instant::now(), self.cpu_of_all().await?);
            let share = |name: &str| {
                let before = last.1.get(name).copied().unwrap_or_default();
                let spent = now.1.get(name).copied().unwrap_or_default().saturating_sub(before);
                spent.as_secs_f64() / (now.0 - last.0).as_secs_f64()
            };
            let busy: Vec<_> = ["kube-apiserver", "kube-controller", "kube-proxy", "nft", "etcd"]
                .into_iter()
                .map(|name| (name, share(name)))
                .filter(|(_, share)| *share > 0.25)
                .collect();
            let state = format!("cores in use: {busy:.2?}");
            last = now;
            Ok(Seen::when(busy.is_empty(), (), || state))
        })
        .await?;
        eprintln!("Kubernetes is at rest {:.0} s later", began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn measure(&mut self, services: usize, flips: &mut Flips, busy: Duration) -> Result {
        self.idle(services).await?;

        let (bytes, updates) = self.pushed().await?;
        let mut times = flips.time(AT_REST, Duration::ZERO).await?;
        let (bytes, updates) = (self.pushed().await?.0 - bytes, self.pushed().await?.1 - updates);
        self.figures.add(services, "change_to_traffic_ms_p50", percentile(&mut times.seen, 50), "ms");
        self.figures.add(services, "change_to_traffic_ms_p99", percentile(&mut times.seen, 99), "ms");
        self.figures.add(services, "bytes_per_endpoint_change", bytes / updates.max(1.0), "bytes");

        let before = self.operators_cpu().await?;
        let (mut times, changes) = self.while_others_come(services, flips, busy).await?;
        let cpu: Vec<_> =
            self.operators_cpu().await?.iter().zip(before).map(|(now, then)| *now - then).collect();
        // Where something waits in a queue that grows, the end is slower than the whole.
        let mut last = times.seen[times.seen.len() * 3 / 4..].to_vec();
        let (count, mut all) = (times.seen.len(), times.seen.clone());
        let [p90, most] = [90, 100].map(|percent| percentile(&mut all, percent));
        eprintln!("{count} changes were timed: p90 {p90:.0} ms, the slowest {most:.0} ms");
        self.figures.add(
            services,
            "change_to_traffic_busy_last_quarter_ms_p50",
            percentile(&mut last, 50),
            "ms",
        );
        self.figures.add(services, "change_to_traffic_busy_ms_p50", percentile(&mut times.seen, 50), "ms");
        self.figures.add(services, "change_to_traffic_busy_ms_p99", percentile(&mut times.seen, 99), "ms");
        // Whose the time is: the API server's until it has answered, then everybody else's.
        self.figures.add(services, "change_written_busy_ms_p99", percentile(&mut times.written, 99), "ms");
        self.figures.add(services, "written_to_traffic_busy_ms_p99", percentile(&mut times.after, 99), "ms");
        let per_change = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / figures::float(changes);
        // Of the leader, and of all replicas: each compiles for itself.
        self.figures.add(services, "operator_cpu_ms_per_change", per_change(cpu[0]), "ms");
        let all = cpu.iter().sum();
        self.figures.add(services, "operators_cpu_ms_per_change", per_change(all), "ms");
        let mut times = self.without_kube_proxy(services, flips, busy.min(FROZEN)).await?;
        let (seen, written) = (percentile(&mut times.seen, 99), percentile(&mut times.written, 99));
        self.figures.add(services, "change_to_traffic_busy_no_kube_proxy_ms_p99", seen, "ms");
        self.figures.add(services, "change_written_busy_no_kube_proxy_ms_p99", written, "ms");
        // What the kube-proxies have missed they make up for now.
        self.calm().await?;

        let operator = self.most_memory(mesh::operators(&self.cluster).await?).await?;
        self.figures.add(services, "operator_rss_mib", operator, "MiB");
        let proxy = self.most_memory(mesh::proxies(&self.cluster).await?).await?;
        self.figures.add(services, "proxy_rss_mib", proxy, "MiB");

        self.restart_an_operator(services).await?;
        self.restart_a_proxy(services).await
    }

    /// Changes that are timed while others come, and how many there were in all.
    async fn while_others_come(
        &self,
        services: usize,
        flips: &mut Flips,
        busy: Duration,
    ) -> Result<(Times, usize)> {
        let began = Instant::now();
        let churn = Churn::start(&self.cluster, services);
        let count = usize::try_from(busy.as_millis() / BETWEEN.as_millis())?;
        let times = flips.time(count.max(20), BETWEEN).await?;
        let changes = churn.stop().await? + times.seen.len();
        eprintln!("{:.0} changes a second", figures::float(changes) / began.elapsed().as_secs_f64());
        Ok((times, changes))
    }

    /// The same while nobody writes rules of the kernel for all these changes: every kube-proxy is frozen, and the rules stay that
    /// lead to the proxies. On few cores that is what the mesh and the API server need by themselves.
    async fn without_kube_proxy(&self, services: usize, flips: &mut Flips, busy: Duration) -> Result<Times> {
        let signal = async |signal: &str| {
            for node in &self.cluster.nodes {
                self.embedded.signal_daemon(node, "kube-proxy", signal).await?;
            }
            Ok(())
        };
        let mut times = Times::default();
        let frozen = async {
            signal("STOP").await?;
            times = self.while_others_come(services, flips, busy).await?.0;
            Ok(())
        };
        afterwards(frozen, signal("CONT")).await?;
        Ok(times)
    }

    /// What the leader does while nothing happens.
    async fn idle(&mut self, services: usize) -> Result {
        let leader = self.leader().await?;
        let process = self.embedded.process_of(&leader).await?;
        let requests = || async { Metrics::of(&self.cluster, &leader).await.map(|m| m.count(REQUESTS, &[])) };
        let (began, before, cpu) = (Instant::now(), requests().await?, self.embedded.cpu(&process).await?);
        wait::until_every(seconds(1), "time passes", IDLE + seconds(5), async || {
            Ok(Seen::when(began.elapsed() >= IDLE, (), String::new))
        })
        .await?;
        let (took, asked) = (began.elapsed().as_secs_f64(), requests().await? - before);
        let cpu = self.embedded.cpu(&process).await? - cpu;
        self.figures.add(services, "operator_idle_api_requests_per_second", asked / took, "1/s");
        self.figures.add(services, "operator_idle_mcpu", cpu.as_secs_f64() * 1000.0 / took, "mCPU");
        Ok(())
    }

    /// One that does not lead: how long until it could serve a proxy, and the most memory it took for that.
    async fn restart_an_operator(&mut self, services: usize) -> Result {
        let leader = self.leader().await?.name_any();
        let known: Vec<_> = mesh::operators(&self.cluster).await?.iter().map(ResourceExt::name_any).collect();
        let other = known.iter().find(|name| **name != leader).ok_or("there is one replica only")?;
        let pods = self.cluster.api::<Pod>(mesh::NAMESPACE);
        pods.delete(other, &DeleteParams::default().grace_period(0)).await?;
        let new = wait::until("another replica is ready", seconds(180), async || {
            let pods = mesh::operators(&self.cluster).await?;
            let new = pods.into_iter().find(|pod| !known.contains(&pod.name_any()) && is_ready(pod));
            let there = new.is_some();
            Ok(Seen::when(there, new, || "none".to_owned()))
        })
        .await?
        .ok_or("no replica")?;
        let took = Metrics::of(&self.cluster, &new).await?.count(OPERATOR_START, &[]);
        self.figures.add(services, "operator_full_config_ms", took * 1000.0, "ms");
        let most = self.embedded.most_memory(&self.embedded.process_of(&new).await?).await?;
        self.figures.add(services, "operator_relist_peak_mib", figures::bytes(most) / MIB, "MiB");
        Ok(())
    }

    async fn restart_a_proxy(&mut self, services: usize) -> Result {
        let old = mesh::proxy_on(&self.cluster, &self.cluster.nodes[0]).await?.name_any();
        let pods = self.cluster.api::<Pod>(mesh::NAMESPACE);
        pods.delete(&old, &DeleteParams::default().grace_period(0)).await?;
        mesh::proxies_settled(&self.cluster, &[old], seconds(180)).await?;
        let took = Metrics::on(&self.cluster, &self.cluster.nodes[0]).await?.count(PROXY_START, &[]);
        self.figures.add(services, "proxy_ready_ms", took * 1000.0, "ms");
        Ok(())
    }

    async fn leader(&self) -> Result<Pod> {
        let leader = mesh::leader(&self.cluster).await?;
        let pods = mesh::operators(&self.cluster).await?;
        let found = pods.into_iter().find(|pod| leader.starts_with(&pod.name_any()));
        Ok(found.ok_or_else(|| format!("the holder {leader} is none of the pods"))?)
    }

    /// CPU time of each replica, the leader's first.
    async fn operators_cpu(&self) -> Result<Vec<Duration>> {
        let leader = self.leader().await?.name_any();
        let mut pods = mesh::operators(&self.cluster).await?;
        pods.sort_by_key(|pod| (pod.name_any() != leader, pod.name_any()));
        let mut all = Vec::new();
        for pod in pods {
            all.push(self.embedded.cpu(&self.embedded.process_of(&pod).await?).await?);
        }
        Ok(all)
    }

    /// Bytes and updates that all replicas have sent.
    async fn pushed(&self) -> Result<(f64, f64)> {
        let (mut bytes, mut updates) = (0.0, 0.0);
        for pod in mesh::operators(&self.cluster).await?.iter().filter(|pod| is_ready(pod)) {
            let metrics = Metrics::of(&self.cluster, pod).await?;
            bytes += metrics.count("weft_operator_config_update_bytes_total", &[]);
            updates += metrics.count("weft_operator_config_updates_total", &[]);
        }
        Ok((bytes, updates))
    }

    /// Of the one that takes the most now, in MiB.
    async fn most_memory(&self, pods: Vec<Pod>) -> Result<f64> {
        let mut most = 0.0_f64;
        for pod in pods.iter().filter(|pod| is_ready(pod)) {
            let process: Process = self.embedded.process_of(pod).await?;
            most = most.max(figures::bytes(self.embedded.memory(&process, "VmRSS").await?) / MIB);
        }
        Ok(most)
    }

    /// CPU time by the name of the command, on all machines together.
    async fn cpu_of_all(&self) -> Result<BTreeMap<String, Duration>> {
        let mut all: BTreeMap<String, Duration> = BTreeMap::new();
        let machines = self.cluster.nodes.iter().map(String::as_str).chain(["control-plane"]);
        for machine in machines {
            for (name, cpu) in self.embedded.cpu_by_command(machine).await? {
                *all.entry(name).or_default() += cpu;
            }
        }
        Ok(all)
    }
}

/// Requests of an operator to the API server.
const REQUESTS: &str = "weft_operator_api_requests_total";
const OPERATOR_START: &str = "weft_operator_start_seconds";
const PROXY_START: &str = "weft_proxy_start_seconds";
