//! `sandboxes [--json] [--remove]`: this agent's containers, and what the agent would do with each.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use rusqlite::Connection;
use serde::Serialize;

use super::{
    super::control::{self, Command},
    AgentError, config, wait_for,
};
use crate::{
    base::clock::Timestamp,
    sandbox::{Found, LABEL_JOB, LABEL_POOL, LABEL_ROW, Outside},
    store::{self, Lock, StoreError, jobs},
};

/// Ended jobs that are read at once.
const PAGE: u32 = 1000;

/// One container.
#[derive(Debug, Serialize)]
struct Listed {
    container_id: String,
    name: String,
    /// As Docker has it: `running`, `exited`, ...
    state: String,
    /// RFC 3339.
    created: String,
    job_id: Option<String>,
    job_row: Option<i64>,
    /// As the record has it.
    job_state: Option<&'static str>,
    verdict: Verdict,
}

/// What the agent does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// A job that has not ended is in it.
    Needed,
    /// The running agent has it for a job to come, or removes it just now.
    OfTheAgent,
    /// Its job has ended, and it runs on: the running agent has it for another job of the same controller, or removes it
    /// just now.
    ToBeUsedAgain,
    /// Its job has ended.
    LeftOver,
    /// The record knows of no job in it.
    Stranger,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Verdict::Needed => "needed: kept until its job has ended",
            Verdict::OfTheAgent => "the running agent's: waits for a job, or is on its way",
            Verdict::ToBeUsedAgain => "the running agent's: waits to be used again, or is on its way",
            Verdict::LeftOver => "left over from an ended job: to be removed",
            Verdict::Stranger => "no job's: to be removed",
        }
    }

    fn goes(self) -> bool {
        matches!(self, Verdict::LeftOver | Verdict::Stranger)
    }
}

/// Lists the containers; `remove`: removes those that no job needs, while no agent runs.
///
/// # Errors
/// Docker does not answer; the record can't be read; with `remove`, an agent runs: it does that by itself.
pub fn sandboxes(path: &Path, json: bool, remove: bool) -> Result<String, AgentError> {
    let config = config(path)?;
    // Held while anything is removed, so that no agent starts meanwhile.
    let _lock = if remove {
        Some(Lock::take(&config.audit_db_path).map_err(|error| match error {
            StoreError::InUse { .. } => AgentError::Refused(
                "the agent runs, and removes by itself what no job needs, within a minute".to_owned(),
            ),
            other => other.into(),
        })?)
    } else {
        None
    };
    wait_for(async {
        let outside = Outside::new(&config.sandbox, &config.data_dir);
        let found = outside.list().await.map_err(|error| AgentError::Refused(error.to_string()))?;
        let alive = !remove && control::ask(&config.data_dir, Command::Status).await.is_ok();
        let listed = if config.audit_db_path.exists() {
            store::look(&config.audit_db_path, |db| judge(db, found, alive))?
        } else {
            found.into_iter().map(|found| listed(found, None, false, alive)).collect()
        };
        let mut removed = 0;
        for container in listed.iter().filter(|container| remove && container.verdict.goes()) {
            outside.remove(&container.container_id).await.map_err(|error| {
                AgentError::Refused(format!("{} could not be removed: {error}", container.name))
            })?;
            removed += 1;
        }
        if json {
            let text = serde_json::json!({ "sandboxes": listed, "removed": removed });
            return Ok(text.to_string());
        }
        let mut lines: Vec<String> = listed.iter().map(line).collect();
        lines.push(match (remove, listed.len()) {
            (_, 0) => "no sandbox of this agent is there".to_owned(),
            (true, _) => format!("{} removed", boxes(removed)),
            (false, all) => format!(
                "{}, {} to be removed{}",
                boxes(all),
                listed.iter().filter(|container| container.verdict.goes()).count(),
                if alive { " by the agent within a minute" } else { "; the agent does it at its next start" }
            ),
        });
        Ok(lines.join("\n"))
    })
}

/// Joins containers and record.
fn judge(db: &Connection, found: Vec<Found>, alive: bool) -> Result<Vec<Listed>, StoreError> {
    let there: HashSet<&str> = found.iter().map(|container| container.container_id.as_str()).collect();
    // The job that is in a container, and the last of those that were.
    let mut known: HashMap<String, jobs::Holder> = HashMap::new();
    let unfinished = jobs::holders(db)?;
    let (mut page, mut after) = (jobs::uncleaned(db, 0, PAGE)?, 0);
    while let Some(last) = page.last() {
        after = after.max(last.row);
        known.extend(page.into_iter().filter_map(|job| in_one_of(&there, job)));
        page = jobs::uncleaned(db, after, PAGE)?;
    }
    known.extend(unfinished.into_iter().filter_map(|job| in_one_of(&there, job)));
    found
        .into_iter()
        .map(|container| {
            let job = match known.get(&container.container_id) {
                Some(job) => Some(job.clone()),
                // One that was made for a job and never got it, or whose job was cleaned long ago.
                None => match container.labels.get(LABEL_ROW).and_then(|row| row.parse().ok()) {
                    Some(row) => jobs::holder(db, row)?,
                    None => None,
                },
            };
            let again = match &job {
                Some(job) => jobs::use_of(db, job.row)?.is_some(),
                None => false,
            };
            Ok(listed(container, job, again && alive, alive))
        })
        .collect()
}

/// With the container's id, if it is one of these.
fn in_one_of(there: &HashSet<&str>, job: jobs::Holder) -> Option<(String, jobs::Holder)> {
    let id = job.container_id.clone().filter(|id| there.contains(id.as_str()))?;
    Some((id, job))
}

/// `again`: a job in it may be followed by another.
fn listed(container: Found, job: Option<jobs::Holder>, again: bool, alive: bool) -> Listed {
    let unfinished = job.as_ref().is_some_and(|job| !job.state.is_final());
    let verdict = match &job {
        Some(job) if job.container_id.as_deref() == Some(&container.container_id) => {
            match job.state.is_final() {
                false => Verdict::Needed,
                true if again && container.state == "running" => Verdict::ToBeUsedAgain,
                true => Verdict::LeftOver,
            }
        }
        // Being started for a job, or waiting for one; when no agent runs, nobody will use it.
        _ if alive && (unfinished || container.labels.contains_key(LABEL_POOL)) => Verdict::OfTheAgent,
        _ => Verdict::Stranger,
    };
    Listed {
        name: container.name,
        state: container.state,
        created: Timestamp::from_secs(container.created).rfc3339(),
        job_id: job
            .as_ref()
            .map(|job| job.job_id.clone())
            .or_else(|| container.labels.get(LABEL_JOB).cloned()),
        job_row: job.as_ref().map(|job| job.row),
        job_state: job.as_ref().map(|job| job.state.as_str()),
        container_id: container.container_id,
        verdict,
    }
}

fn boxes(number: usize) -> String {
    if number == 1 { "1 sandbox".to_owned() } else { format!("{number} sandboxes") }
}

fn line(container: &Listed) -> String {
    let job = match (&container.job_id, container.job_state) {
        (Some(id), Some(state)) => format!("job {id} ({state})"),
        (Some(id), None) => format!("job {id} (not in the record)"),
        (None, _) => "no job".to_owned(),
    };
    format!(
        "{}  {}  {}  {}  {job}  {}",
        &container.container_id.get(..12).unwrap_or(&container.container_id),
        container.name,
        container.state,
        container.created,
        container.verdict.words()
    )
}
