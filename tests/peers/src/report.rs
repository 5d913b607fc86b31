//! Sums up: medians over the rounds, one table, one file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::systems::System;

/// The figures of all rounds.
#[derive(Default)]
pub(crate) struct Report(Vec<Series>);

struct Series {
    scenario: &'static str,
    system: &'static str,
    metric: &'static str,
    values: Vec<f64>,
}

/// What `latest.json` is a list of.
#[derive(Serialize)]
struct Figure {
    scenario: &'static str,
    system: &'static str,
    metric: &'static str,
    /// The median.
    value: f64,
    unit: &'static str,
    rounds: usize,
    min: f64,
    max: f64,
}

impl Series {
    fn figure(&self) -> Figure {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        let middle = sorted.len() / 2;
        let value = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        let Self { scenario, system, metric, .. } = *self;
        Figure { scenario, system, metric, value, unit: unit(metric), rounds: sorted.len(), min, max }
    }
}

fn unit(metric: &str) -> &'static str {
    if metric.starts_with("cpu_us") || metric.ends_with("_us") {
        "us"
    } else if metric.ends_with("_mib") {
        "MiB"
    } else if metric.ends_with("_kib") {
        "KiB"
    } else if metric.ends_with("_per_second") {
        "1/s"
    } else {
        "1"
    }
}

impl Report {
    /// Takes in the figures of one round.
    pub(crate) fn add(
        &mut self,
        scenario: &'static str,
        system: &'static str,
        figures: Vec<(&'static str, f64)>,
    ) {
        for (metric, value) in figures {
            let same =
                |one: &&mut Series| (one.scenario, one.system, one.metric) == (scenario, system, metric);
            match self.0.iter_mut().find(same) {
                Some(series) => series.values.push(value),
                None => self.0.push(Series { scenario, system, metric, values: vec![value] }),
            }
        }
    }

    /// One row for each scenario and metric, one column for each system.
    pub(crate) fn print(&self) {
        // By scenario and metric, as they came; in each the figures by system.
        type Row<'a> = ((&'a str, &'a str), BTreeMap<&'a str, Figure>);
        let mut rows: Vec<Row> = Vec::new();
        for series in &self.0 {
            let key = (series.scenario, series.metric);
            if !rows.iter().any(|(row, _)| *row == key) {
                rows.push((key, BTreeMap::new()));
            }
            if let Some((_, row)) = rows.iter_mut().find(|(row, _)| *row == key) {
                row.insert(series.system, series.figure());
            }
        }
        let names: Vec<_> = System::ALL.iter().map(|system| system.name()).collect();
        println!("| scenario | metric | {} |", names.join(" | "));
        println!("|---|---|{}", "---|".repeat(names.len()));
        for ((scenario, metric), row) in rows {
            let cell =
                |name: &&str| row.get(name).map_or_else(|| "–".to_owned(), |figure| short(figure.value));
            let cells: Vec<_> = names.iter().map(cell).collect();
            println!("| {scenario} | {metric} | {} |", cells.join(" | "));
        }
    }

    /// Writes every figure to `path`.
    pub(crate) fn write(&self, path: &Path) -> Result {
        let figures: Vec<_> = self.0.iter().map(Series::figure).collect();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?)
    }
}

fn short(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_rounds_counts() {
        let mut report = Report::default();
        for value in [5.0, 1.0, 9.0] {
            report.add("a", "weft", vec![("cpu_us_per_request", value)]);
        }
        report.add("b", "weft", vec![("p50_us", 1.0)]);
        report.add("b", "weft", vec![("p50_us", 2.0)]);
        let figures: Vec<_> = report.0.iter().map(Series::figure).collect();
        assert_eq!((figures[0].value, figures[0].min, figures[0].max, figures[0].rounds), (5.0, 1.0, 9.0, 3));
        assert_eq!((figures[1].value, figures[1].unit), (1.5, "us"));
    }
}
