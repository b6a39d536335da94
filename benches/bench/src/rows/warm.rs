//! A job that finds a waiting sandbox, against `docker run --rm` of the same command.

use std::time::Instant;

use quickcmd::client::Client;

use super::Setting;
use crate::{
    Result,
    agent::Agent,
    docker::Peers,
    stats::{Goal, Row, Unit, ms},
};

pub async fn rows(setting: &Setting<'_>, peers: &Peers) -> Result<Vec<Row>> {
    let agent = setting.agent("").await?;
    let client = agent.client()?;
    let mut first = Row {
        name: "submit_to_first_frame_warm",
        unit: Unit::Milliseconds,
        ours: Vec::new(),
        peer: Vec::new(),
        peer_name: "docker run --rm, first byte",
        goal: Goal::TimesFaster { times: 50.0, p50: Some(5.0), p99: None },
        note: String::new(),
    };
    let mut result = Row {
        name: "submit_to_result_warm",
        peer_name: "docker run --rm",
        goal: Goal::TimesFaster { times: 30.0, p50: None, p99: Some(20.0) },
        ours: Vec::new(),
        peer: Vec::new(),
        note: String::new(),
        ..first
    };
    // One of each that does not count: connections, image and caches are there afterwards.
    for counted in std::iter::once(false).chain(std::iter::repeat_n(true, setting.scale.jobs)) {
        let peer = peers.run("echo hi", None).await?;
        agent.until_pool(2.0).await?;
        let (first_frame, _) = run(&agent, &client, "echo hi").await?;
        let peer_true = peers.run("true", None).await?;
        agent.until_pool(2.0).await?;
        let (_, whole) = run(&agent, &client, "true").await?;
        if counted {
            first.peer.push(peer.first_byte_ms);
            first.ours.push(first_frame);
            result.peer.push(peer_true.total_ms);
            result.ours.push(whole);
        }
    }
    let misses = agent.metric("quickcmd_agent_pool_misses_total").await?;
    if misses > 0.0 {
        result.note = format!("{misses} of all these jobs found no waiting sandbox");
    }
    agent.finish(peers).await?;
    Ok(vec![first, result])
}

/// Milliseconds from the submission to the first frame of the job's own output, and to its result.
pub async fn run(agent: &Agent, client: &Client, command: &str) -> Result<(f64, f64)> {
    let job = agent.job(command);
    let begun = Instant::now();
    // As `quickcmd run` does.
    client.connect_ahead();
    client.submit(&job).await?;
    let mut frames = client.follow(&job.job_id, 1, false);
    let mut first = None;
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        first.get_or_insert_with(|| ms(begun.elapsed()));
        if let Some(result) = frame.result {
            let whole = ms(begun.elapsed());
            if result.exit_code != 0 {
                return Err(format!("the job failed: {result:?}\n{}", agent.log()).into());
            }
            return Ok((first.unwrap_or(whole), whole));
        }
    }
    Err("a stream without a final frame".into())
}
