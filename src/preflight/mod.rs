//! `preflight`: looks at the host as a security engineer would before an agent is let loose on it, and says what to
//! change. What is found out (`host`) and what is thought of it (`judge`, pure) are apart, so that every judgement can be
//! tested on both sides of its threshold. The model is the host guide of Firecracker
//! (<https://github.com/firecracker-microvm/firecracker/blob/main/docs/prod-host-setup.md>), for containers.

mod gather;
mod holes;
mod host;
mod judge;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::config::Config;

/// What is thought of one finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Makes an attack easier, or is not known; the agent holds without it.
    Warning,
    /// Something that the agent promises does not hold on this host.
    Danger,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Danger => "danger",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a stable word.
    pub check: &'static str,
    pub level: Level,
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub change: String,
}

/// All findings, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many of that level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// For people: a line each, and what to change below it.
    pub fn text(&self) -> String {
        let mut lines = String::new();
        for finding in &self.findings {
            lines.push_str(&format!(
                "{:<8} {:<12} {}\n",
                finding.level.as_str(),
                finding.check,
                finding.found
            ));
            if !finding.change.is_empty() {
                lines.push_str(&format!("{:<21} -> {}\n", "", finding.change));
            }
        }
        lines.push_str(&format!(
            "{} dangerous, {} to be warned of, {} well",
            self.count(Level::Danger),
            self.count(Level::Warning),
            self.count(Level::Ok)
        ));
        lines
    }

    /// For programs: one object.
    pub fn json(&self) -> String {
        serde_json::json!({
            "dangers": self.count(Level::Danger),
            "warnings": self.count(Level::Warning),
            "known_holes_as_of": holes::AS_OF,
            "findings": self.findings,
        })
        .to_string()
    }
}

/// Looks at this host, for the agent of that configuration.
pub async fn look(file: &Path, config: &Config) -> Report {
    Report { findings: judge::judge(&gather::gather(file, config).await) }
}
