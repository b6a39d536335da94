//! Figures: percentiles, one row of the table, the summary file.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// What a row is measured in, and which way is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    ASecond,
    MegabytesASecond,
    Mebibytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::ASecond => "/s",
            Unit::MegabytesASecond => "MB/s",
            Unit::Mebibytes => "MiB",
        }
    }

    /// Rates: the 99th percentile is the slow end, the 1st of the numbers.
    fn more_is_better(self) -> bool {
        matches!(self, Unit::ASecond | Unit::MegabytesASecond)
    }
}

/// What a row must reach. The ratio is always written so that the goal reads as the issue has it.
#[derive(Clone, Copy)]
pub enum Goal {
    /// Our figure is so many times better than the peer's, and one of ours stays below a bound.
    TimesFaster { times: f64, p50: Option<f64>, p99: Option<f64> },
    /// Ours divided by the peer's is at most this.
    AtMostOfPeer(f64),
    /// Ours divided by the peer's is at least this.
    AtLeastOfPeer(f64),
    /// No peer: a bound on our median.
    AtMost(f64),
}

impl Goal {
    fn text(self, unit: Unit) -> String {
        let unit = unit.name();
        match self {
            Goal::TimesFaster { times, p50, p99 } => {
                let bound = |name: &str, bound: Option<f64>| {
                    bound.map(|bound| format!(", {name} <= {bound} {unit}")).unwrap_or_default()
                };
                format!("peer/ours >= {times}{}{}", bound("p50", p50), bound("p99", p99))
            }
            Goal::AtMostOfPeer(limit) => format!("ours/peer <= {limit}"),
            Goal::AtLeastOfPeer(limit) => format!("ours/peer >= {limit}"),
            Goal::AtMost(limit) => format!("<= {limit} {unit}"),
        }
    }
}

/// One row of the table.
pub struct Row {
    pub name: &'static str,
    pub unit: Unit,
    pub ours: Vec<f64>,
    pub peer: Vec<f64>,
    pub peer_name: &'static str,
    pub goal: Goal,
    /// What a reader of the row must know: smaller sizes, misses, why there is no figure.
    pub note: String,
}

impl Row {
    /// The 50th and the 99th percentile (nearest rank), the latter at the bad end.
    fn percentiles(&self, samples: &[f64]) -> Option<(f64, f64)> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        if self.unit.more_is_better() {
            sorted.reverse();
        }
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some((rank(50)?, rank(99)?))
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, _) = self.percentiles(&self.ours)?;
        let (peer, _) = self.percentiles(&self.peer)?;
        match (self.goal, self.unit.more_is_better()) {
            (Goal::TimesFaster { .. }, false) => Some(peer / ours),
            _ => Some(ours / peer),
        }
    }

    fn met(&self) -> bool {
        let Some((p50, p99)) = self.percentiles(&self.ours) else { return false };
        let ratio = self.ratio();
        match self.goal {
            Goal::TimesFaster { times, p50: median, p99: tail } => {
                ratio.is_some_and(|ratio| ratio >= times)
                    && median.is_none_or(|bound| p50 <= bound)
                    && tail.is_none_or(|bound| p99 <= bound)
            }
            Goal::AtMostOfPeer(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Goal::AtLeastOfPeer(limit) => ratio.is_some_and(|ratio| ratio >= limit),
            Goal::AtMost(limit) => p50 <= limit,
        }
    }

    fn json(&self) -> Value {
        let ours = self.percentiles(&self.ours);
        let peer = self.percentiles(&self.peer);
        json!({
            "unit": self.unit.name(),
            "p50": ours.map(|(p50, _)| rounded(p50)),
            "p99": ours.map(|(_, p99)| rounded(p99)),
            "samples": self.ours.len(),
            "peer": peer.map(|(p50, _)| rounded(p50)),
            "peer_p99": peer.map(|(_, p99)| rounded(p99)),
            "peer_samples": self.peer.len(),
            "peer_name": self.peer_name,
            "ratio": self.ratio().map(rounded),
            "goal": self.goal.text(self.unit),
            "met": self.met(),
            "note": self.note,
        })
    }
}

/// Milliseconds of a time.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Three digits behind the point are more than any of this is worth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn digits(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) if value >= 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// The file's content: one member a row, beside `machine` and `mode`.
pub fn summary(rows: &[Row], machine: &Value, mode: &str) -> Value {
    let mut summary = Map::new();
    summary.insert("mode".to_owned(), json!(mode));
    summary.insert("machine".to_owned(), machine.clone());
    for row in rows {
        summary.insert(row.name.to_owned(), row.json());
    }
    Value::Object(summary)
}

/// The table, in Markdown, as README shows it.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| figure | unit | p50 | p99 | peer | peer p50 | ratio | goal | met |".to_owned(),
        "|---|---|--:|--:|---|--:|--:|---|---|".to_owned(),
    ];
    for row in rows {
        let ours = row.percentiles(&row.ours);
        let peer = row.percentiles(&row.peer);
        lines.push(format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.unit.name(),
            digits(ours.map(|(p50, _)| p50)),
            digits(ours.map(|(_, p99)| p99)),
            row.peer_name,
            digits(peer.map(|(p50, _)| p50)),
            digits(row.ratio()),
            row.goal.text(row.unit),
            if row.met() { "yes" } else { "**no**" },
        ));
    }
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        lines.push(format!("\n{}: {}", row.name, row.note));
    }
    lines.join("\n")
}
