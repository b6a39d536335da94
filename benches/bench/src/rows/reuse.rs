//! Jobs of a controller that may use a sandbox again, against `docker exec` in one container.

use std::time::{Duration, Instant};

use super::Setting;
use crate::{
    Result,
    agent::{Agent, PATIENCE},
    docker::Peers,
    stats::{Goal, Row, Unit},
    wire::{Conn, post},
};

/// Jobs that run at once, and so sandboxes.
const AT_ONCE: usize = 8;
/// Connections that submit.
const CONNECTIONS: usize = 16;

pub async fn row(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let execs = setting.scale.containers;
    let mut best = (0.0, 1);
    for at_once in [1, 2, 4] {
        let rate = peers.execs(execs.min(20), at_once).await?;
        if rate > best.0 {
            best = (rate, at_once);
        }
    }
    let more = format!(
        "max_concurrent_jobs: {AT_ONCE}\nmax_queue_depth: 1000000\npool: {{ size: 0, max: 16, max_memory: 1 GiB }}"
    );
    let agent = setting.trusted_agent(&more).await?;
    // The sandboxes are made once, in the first round, which does not count.
    round(&agent, setting.scale.again / 4).await?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..setting.scale.rounds {
        peer.push(peers.execs(execs, best.1).await?);
        ours.push(round(&agent, setting.scale.again).await?);
    }
    let used = agent.metric("quickcmd_agent_pool_misses_total").await?;
    agent.finish(peers).await?;
    Ok(Row {
        name: "reuse_mode_jobs_a_second",
        unit: Unit::ASecond,
        ours,
        peer,
        peer_name: "docker exec loop",
        goal: Goal::AtLeastOfPeer(50.0),
        note: format!(
            "{} jobs a round in {used:.0} containers; the loop is best with {} at once",
            setting.scale.again, best.1
        ),
    })
}

/// Submits so many and waits until the end of the last is recorded; jobs a second.
async fn round(agent: &Agent, count: usize) -> Result<f64> {
    let ended = "quickcmd_agent_jobs_ended_total{reason=\"exited\",status=\"completed\"}";
    let before = agent.metric(ended).await.unwrap_or(0.0);
    let requests: Vec<Vec<u8>> =
        (0..count).map(|_| Ok(post(&agent.signed(&agent.job("true"))?))).collect::<Result<_>>()?;
    let mut conns = Vec::new();
    for _ in 0..CONNECTIONS {
        conns.push(Conn::open(agent.port, &agent.tls).await?);
    }
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (mut conn, mine) in conns.into_iter().zip(requests.chunks(count.div_ceil(CONNECTIONS))) {
        let mine = mine.to_vec();
        tasks.spawn(async move {
            for request in mine {
                let (status, body) = conn.send(&request).await?;
                if status != 202 {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
                }
            }
            Result::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let count = f64::from(u32::try_from(count)?);
    while agent.metric(ended).await.unwrap_or(0.0) < before + count {
        if begun.elapsed() > PATIENCE {
            return Err(format!("the jobs do not end:\n{}", agent.log()).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(count / begun.elapsed().as_secs_f64())
}
