//! What Docker itself bounds: a job without a waiting sandbox, and fresh containers in sustained load.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{NO_POOL, Setting, warm};
use crate::{
    Result,
    agent::{Agent, PATIENCE},
    docker::Peers,
    stats::{Goal, Row, Unit},
};

/// Submit to result without a pool, against create, start and wait by hand.
pub async fn cold(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let agent = setting.agent(NO_POOL).await?;
    let client = agent.client()?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for counted in std::iter::once(false).chain(std::iter::repeat_n(true, setting.scale.jobs)) {
        let (took, id) = peers.by_hand().await?;
        peers.remove(&id).await?;
        let (_, whole) = warm::run(&agent, &client, "true").await?;
        // Its removal must not disturb the peer's next turn.
        peers.until_left(&agent, 0).await?;
        if counted {
            peer.push(took);
            ours.push(whole);
        }
    }
    agent.finish(peers).await?;
    Ok(Row {
        name: "cold",
        unit: Unit::Milliseconds,
        ours,
        peer,
        peer_name: "create, start, wait by hand",
        goal: Goal::AtMostOfPeer(1.1),
        note: String::new(),
    })
}

/// Jobs a second from a full pool to a full pool with every used container removed, against the bare loop at the
/// parallelism that is best for it.
pub async fn sustained(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let count = setting.scale.containers;
    let mut best = (0.0, 1);
    for at_once in [1, 2, 4] {
        let rate = peers.loops(count.min(20), at_once).await?;
        if rate > best.0 {
            best = (rate, at_once);
        }
    }
    let agent = setting.agent("max_concurrent_jobs: 4").await?;
    agent.until_pool(2.0).await?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..setting.scale.rounds {
        peer.push(peers.loops(count, best.1).await?);
        ours.push(jobs(&agent, peers, count).await?);
    }
    agent.finish(peers).await?;
    Ok(Row {
        name: "sustained_fresh_containers_a_second",
        unit: Unit::ASecond,
        ours,
        peer,
        peer_name: "bare API loop",
        goal: Goal::AtLeastOfPeer(0.95),
        note: format!("{count} containers a round; the loop is best with {} at once", best.1),
    })
}

async fn jobs(agent: &Agent, peers: &Peers, count: usize) -> Result<f64> {
    let client = agent.client()?;
    let waiting = agent.metric("quickcmd_agent_pool_depth").await?;
    let begun = Instant::now();
    stream::iter(0..count)
        .map(Ok)
        .try_for_each_concurrent(16, async |_| {
            let (_, _) = warm::run(agent, &client, "true").await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await?;
    // What the pool had more at the beginning was made before the clock ran, what it has more now after it.
    let end = Instant::now() + PATIENCE;
    loop {
        let depth = agent.metric("quickcmd_agent_pool_depth").await?;
        let left = peers.ids(crate::docker::LABEL_AGENT, &agent.id).await?.len();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let made = depth as usize;
        if depth >= waiting && left <= made + 1 {
            let surplus = depth - waiting;
            let made = f64::from(u32::try_from(count)?) + surplus;
            return Ok(made / begun.elapsed().as_secs_f64());
        }
        if Instant::now() > end {
            return Err(format!("the agent does not come to rest:\n{}", agent.log()).into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
