//! What was measured, and what it should be: the targets of the control plane.

use std::time::Duration;

use serde_json::{Value, json};
use weft_tests::Result;

/// One figure.
struct Figure {
    services: usize,
    metric: &'static str,
    value: f64,
    unit: &'static str,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, services: usize, metric: &'static str, value: f64, unit: &'static str) {
        eprintln!("{services:6}  {metric:40} {value:10.2} {unit}");
        self.0.push(Figure { services, metric, value, unit });
    }

    /// To `target/bench/scale.json`, beside those of other sizes that an earlier run has left there.
    pub(crate) fn write(&self) -> Result {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench/scale.json");
        std::fs::create_dir_all(file.parent().ok_or("no directory")?)?;
        let mut all: Vec<Value> =
            std::fs::read(&file).map_or(Ok(Vec::new()), |text| serde_json::from_slice(&text))?;
        all.retain(|old| !self.0.iter().any(|new| old["services"] == new.services));
        all.extend(self.0.iter().map(|figure| {
            json!({"services": figure.services, "metric": figure.metric, "value": figure.value, "unit": figure.unit})
        }));
        all.sort_by_key(|figure| figure["services"].as_u64());
        std::fs::write(&file, format!("{:#}\n", Value::from(all)))?;
        Ok(())
    }

    fn get(&self, services: usize, metric: &str) -> Option<f64> {
        self.0.iter().find(|one| one.services == services && one.metric == metric).map(|one| one.value)
    }

    /// Memory while an operator lists everything is measured against what it holds afterwards.
    fn target(&self, services: usize, metric: &str) -> Option<f64> {
        match metric {
            "operator_relist_peak_mib" => self.get(services, "operator_rss_mib").map(|rss| 1.5 * rss),
            _ => target(services, metric),
        }
    }

    /// A table, with the targets.
    pub(crate) fn show(&self) {
        println!("| services | metric | value | target | |\n|---|---|---|---|---|");
        for Figure { services, metric, value, unit } in &self.0 {
            let (target, verdict) = match self.target(*services, metric) {
                Some(target) if *value <= target => (format!("≤ {target:.4}"), "holds"),
                Some(target) => (format!("≤ {target:.4}"), "**does not hold**"),
                None => ("–".to_owned(), ""),
            };
            println!("| {services} | {metric} | {value:.2} {unit} | {target} | {verdict} |");
        }
        let per_change = |services| self.get(services, "operator_cpu_ms_per_change");
        if let (Some(few), Some(many)) = (per_change(1000), per_change(10_000)) {
            let ratio = many / few;
            let verdict = if ratio <= 1.5 { "holds" } else { "**does not hold**" };
            println!(
                "| 10000 against 1000 | operator_cpu_ms_per_change | {ratio:.2} × | ≤ 1.5 × | {verdict} |"
            );
        }
    }
}

/// What a metric should not exceed. Between the sizes for which targets are set, and above them, it is that of the next
/// larger, or of the largest.
fn target(services: usize, metric: &str) -> Option<f64> {
    let by_size = |small: f64, middle: f64, large: f64| match services {
        ..=1000 => small,
        1001..=5000 => middle,
        _ => large,
    };
    let thousands = float(services) / 1000.0;
    Some(match metric {
        "change_to_traffic_ms_p99" => by_size(250.0, 500.0, 1000.0),
        "change_to_traffic_busy_ms_p99" => 1000.0,
        "bytes_per_endpoint_change" => 8192.0,
        "operator_rss_mib" => (30.0 + 12.0 * thousands).min(150.0),
        "proxy_rss_mib" => (15.0 + 3.0 * thousands).min(45.0),
        "proxy_ready_ms" => by_size(500.0, 1500.0, 1500.0),
        "operator_full_config_ms" => by_size(3000.0, 12_000.0, 12_000.0),
        "operator_idle_api_requests_per_second" => 0.5,
        "operator_idle_mcpu" => 5.0,
        _ => return None,
    })
}

/// Microseconds in milliseconds.
pub(crate) fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// A count.
pub(crate) fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A number of bytes.
#[allow(clippy::cast_precision_loss, reason = "exact up to thousands of terabytes")]
pub(crate) fn bytes(count: u64) -> f64 {
    count as f64
}
