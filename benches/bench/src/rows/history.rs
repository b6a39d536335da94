//! A long record against a short one: the start, a page of the list, a job's status.

use std::time::Instant;

use quickcmd::client::{Client, ListFilter};
use rusqlite::Connection;

use super::{NO_POOL, Setting};
use crate::{
    Result,
    agent::Agent,
    docker::Peers,
    stats::{Goal, Row, Unit, ms},
};

/// Jobs of the record that pages and reads are compared with.
const SHORT: u32 = 1000;

pub async fn rows(setting: &Setting<'_>, peers: &Peers) -> Result<Vec<Row>> {
    let many = setting.scale.history;
    let mut empty = setting.prepare(NO_POOL)?;
    let mut short = setting.prepare(NO_POOL)?;
    let mut long = setting.prepare(NO_POOL)?;
    for (agent, jobs) in [(&mut empty, 0), (&mut short, SHORT), (&mut long, many)] {
        // Its first start makes the tables.
        agent.launch()?;
        agent.until_ready().await?;
        agent.stop().await?;
        fill(agent, jobs)?;
    }
    let size = std::fs::metadata(long.database())?.len() / 1_000_000;
    let row = |name, peer_name, note: &str| Row {
        name,
        unit: Unit::Milliseconds,
        ours: Vec::new(),
        peer: Vec::new(),
        peer_name,
        goal: Goal::AtMostOfPeer(1.5),
        note: note.to_owned(),
    };

    let note = format!("a record of {many} jobs, {size} MB");
    let mut start = row("start_to_ready", "no record", &note);
    for _ in 0..setting.scale.starts {
        start.peer.push(started(&mut empty).await?);
        start.ours.push(started(&mut long).await?);
    }
    empty.finish(peers).await?;

    for agent in [&mut short, &mut long] {
        agent.launch()?;
        agent.until_ready().await?;
    }
    let (few, lots) = (short.client()?, long.client()?);
    let mut list = row("list_page", "1,000 jobs", &note);
    let mut status = row("status_read", "1,000 jobs", &note);
    for at in 0..u32::try_from(setting.scale.reads)? + 10 {
        // Spread over the whole record.
        let nth = |jobs: u32| 1 + at.wrapping_mul(2_654_435_761) % jobs;
        let peer = (page(&few).await?, read(&few, nth(SHORT)).await?);
        let ours = (page(&lots).await?, read(&lots, nth(many)).await?);
        // The first ones fill caches.
        if at >= 10 {
            list.peer.push(peer.0);
            list.ours.push(ours.0);
            status.peer.push(peer.1);
            status.ours.push(ours.1);
        }
    }
    short.finish(peers).await?;
    long.finish(peers).await?;
    Ok(vec![start, list, status])
}

async fn started(agent: &mut Agent) -> Result<f64> {
    let begun = Instant::now();
    agent.launch()?;
    agent.until_ready().await?;
    let took = ms(begun.elapsed());
    agent.stop().await?;
    Ok(took)
}

async fn page(client: &Client) -> Result<f64> {
    let begun = Instant::now();
    let page = client.list(&ListFilter { limit: Some(50), ..ListFilter::default() }).await?;
    let took = ms(begun.elapsed());
    match page.jobs.len() {
        50 => Ok(took),
        other => Err(format!("a page of {other} jobs").into()),
    }
}

async fn read(client: &Client, nth: u32) -> Result<f64> {
    let begun = Instant::now();
    let status = client.status(&format!("old-{nth}")).await?;
    let took = ms(begun.elapsed());
    status.result.map(|_| took).ok_or_else(|| "an old job without a result".into())
}

/// Writes ended jobs as the agent would have: the job, its texts, its output, its submission and its five audit entries.
fn fill(agent: &Agent, jobs: u32) -> Result<()> {
    if jobs == 0 {
        return Ok(());
    }
    let mut db = Connection::open(agent.database())?;
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; PRAGMA foreign_keys = OFF;")?;
    let tx = db.transaction()?;
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
    // One every ten seconds, the last one an hour ago.
    let at = "((unixepoch() - 3600 - (?1 - i) * 10) * 1000000000)";
    let hash = "hex(randomblob(32))";
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for statement in [
        format!(
            "{numbers} INSERT INTO jobs (row, controller_id, job_id, peer, payload_sha256, accepted_at, ttl, risk_level, \
             image, limits, network, state, reason, attempt, container_name, container_id, image_id, image_digest, \
             starting_at, started_at, deadline_at, ended_at, queued_ms, started_ms, duration_ms, exit_code, \
             stdout_bytes, stdout_sha256, stderr_sha256, cpu_ms, max_rss_bytes, cleaned_at, audit_entry, audit_sha256) \
             SELECT i, 'bench', 'old-' || i, '127.0.0.1', lower({hash}), {at}, {at} / 1000000000 + 300, 'medium', \
             'quickcmd/busybox:latest', \
             '{{\"cpu\":0.5,\"memory\":268435456,\"pids\":256,\"timeout_seconds\":300,\"tmpfs\":67108864}}', 'none', \
             'completed', 'exited', 1, lower(hex(randomblob(6))), lower({hash}), 'sha256:' || lower({hash}), \
             'sha256:' || lower({hash}), {at} + 1000000, {at} + 2000000, {at} + 300000000000, {at} + 5000000, 1, 1, 3, 0, \
             6, lower({hash}), '{empty}', 1, 1000000, {at} + 9000000, i * 5 - 1, lower({hash}) FROM n"
        ),
        format!(
            "{numbers} INSERT INTO texts (row, prompt, command, snapshot) SELECT i, 'measure', 'echo hello ' || i, '' FROM n"
        ),
        format!("{numbers} INSERT INTO outputs (row, stdout, stderr) SELECT i, 'hello ' || i, '' FROM n"),
        format!(
            "{numbers} INSERT INTO submissions (at, peer, controller_id, verified, job_id, outcome, payload_sha256, job) \
             SELECT {at}, '127.0.0.1', 'bench', 1, 'old-' || i, 'accepted', lower({hash}), i FROM n"
        ),
        format!(
            "{numbers}, k (j, kind) AS (VALUES (0, 'job.accepted'), (1, 'job.starting'), (2, 'job.container'), \
             (3, 'job.running'), (4, 'job.ended')) \
             INSERT INTO audit (number, at, kind, job, entry, leaf) SELECT (SELECT coalesce(max(number) + 1, 0) FROM audit) \
             + (i - 1) * 5 + j, {at}, kind, i, CAST('{{\"at\":' || {at} || ',\"controller_id\":\"bench\",\"job\":' || i || \
             ',\"job_id\":\"old-' || i || '\",\"kind\":\"' || kind || '\",\"text\":\"' || {hash} || {hash} || '\"}}' AS BLOB), \
             randomblob(32) FROM n, k"
        ),
    ] {
        tx.execute(&statement, [jobs])?;
    }
    tx.commit()?;
    // As a clean stop leaves it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
