//! Resident memory of the agent's process.

use std::time::Duration;

use super::Setting;
use crate::{
    Result,
    docker::Peers,
    stats::{Goal, Row, Unit},
};

/// Looks of each.
const LOOKS: usize = 5;

pub async fn rows(setting: &Setting<'_>, peers: &Peers) -> Result<Vec<Row>> {
    let agent = setting.agent("max_concurrent_jobs: 1\nmax_queue_depth: 2000").await?;
    agent.until_pool(2.0).await?;
    let mut idle = row("resident_memory_idle", 20.0);
    look(&agent, &mut idle).await?;

    let client = agent.client()?;
    client.submit(&agent.job("sleep 250")).await?;
    for _ in 0..1000 {
        client.submit(&agent.job("true")).await?;
    }
    let queued = agent.metric("quickcmd_agent_queue_depth").await?;
    let mut full = row("resident_memory_with_1000_jobs_queued", 30.0);
    full.note = format!("{queued} jobs in the queue, one runs");
    look(&agent, &mut full).await?;
    agent.finish(peers).await?;
    Ok(vec![idle, full])
}

async fn look(agent: &crate::agent::Agent, row: &mut Row) -> Result<()> {
    for _ in 0..LOOKS {
        tokio::time::sleep(Duration::from_millis(300)).await;
        row.ours.push(agent.resident()?);
    }
    Ok(())
}

fn row(name: &'static str, limit: f64) -> Row {
    Row {
        name,
        unit: Unit::Mebibytes,
        ours: Vec::new(),
        peer: Vec::new(),
        peer_name: "",
        goal: Goal::AtMost(limit),
        note: String::new(),
    }
}
