//! `quickcmd list`: jobs, newest first.

use std::time::Duration;

use clap::{Args, builder::PossibleValuesParser};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    args::Global,
    exits,
    fault::Fault,
    out,
    settings::{self, Need},
    units,
};
use crate::{
    base::clock::Timestamp,
    client::ListFilter,
    wire::{
        Status,
        result::{JobPage, JobRow},
    },
};

/// Characters of a command that a row shows.
const COMMAND_WIDTH: usize = 60;

/// Options of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only jobs in this status
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str())))]
    pub status: Option<String>,
    /// Only jobs that ended for this reason, such as timeout
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only jobs of this controller (needs the scope admin, unless it is us)
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
    /// Only jobs accepted since then: a time such as 2h ago, or 2025-01-07T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only jobs accepted before then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Rows to show
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub limit: u32,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Every page, one after the other
    #[arg(long, conflicts_with = "cursor")]
    pub all: bool,
}

pub async fn run(global: &Global, args: &ListArgs) -> Result<u8, Fault> {
    let now = Timestamp::now();
    let mut filter = ListFilter {
        status: args.status.as_deref().and_then(Status::parse),
        reason: args.reason.clone(),
        controller_id: args.of.clone(),
        since: args.since.as_deref().map(|text| moment("--since", text, now)).transpose()?,
        until: args.until.as_deref().map(|text| moment("--until", text, now)).transpose()?,
        limit: Some(args.limit),
        cursor: args.cursor.clone(),
    };
    let client = settings::connect(global, Need::KeyOrToken)?.client;
    let mut page = client.list(&filter).await?;
    while args.all && page.next_cursor.is_some() {
        filter.cursor = page.next_cursor.take();
        let more = client.list(&filter).await?;
        page.jobs.extend(more.jobs);
        page.next_cursor = more.next_cursor;
    }
    if global.json {
        out::print_json(&page)?;
        return Ok(0);
    }
    out::print(&human(&page))?;
    if let Some(cursor) = &page.next_cursor {
        out::note(&format!("there are more: --cursor {cursor}, or --all"));
    }
    Ok(0)
}

fn human(page: &JobPage) -> String {
    let head = ["JOB", "STATUS", "REASON", "EXIT", "ACCEPTED", "TOOK", "COMMAND"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(page.jobs.iter().map(row));
    out::table(&rows)
}

fn row(job: &JobRow) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        job.job_id.clone(),
        job.status.as_str().to_owned(),
        or_dash(job.reason.clone()),
        or_dash(job.exit_code.map(|code| code.to_string())),
        job.created_at.clone(),
        or_dash(job.duration_ms.map(|ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100))),
        out::clip(&job.command, COMMAND_WIDTH),
    ]
}

/// A moment as the agent reads it: RFC 3339, or so long before `now`.
fn moment(option: &str, text: &str, now: Timestamp) -> Result<String, Fault> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let ago = text.trim().trim_end_matches("ago").trim();
    let seconds = units::seconds(ago).map_err(|_| {
        Fault::new(exits::USAGE, format!("{option} {text} is no time"))
            .hint("write 2h for two hours ago, or 2025-01-07T10:00:00Z")
    })?;
    let before = i64::try_from(Duration::from_secs(seconds).as_nanos()).unwrap_or(i64::MAX);
    Ok(Timestamp(now.0.saturating_sub(before)).rfc3339())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let now = Timestamp::from_secs(1_704_628_800);
        let read = |text| moment("--since", text, now).map_err(|fault| fault.cause);
        assert_eq!(read("2h").as_deref(), Ok("2024-01-07T10:00:00Z"));
        assert_eq!(read("30m ago").as_deref(), Ok("2024-01-07T11:30:00Z"));
        assert_eq!(read("2024-01-01T00:00:00+01:00").as_deref(), Ok("2024-01-01T00:00:00+01:00"));
        assert_eq!(read("yesterday"), Err("--since yesterday is no time".to_owned()));
    }
}
