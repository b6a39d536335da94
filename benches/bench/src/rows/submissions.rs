//! Signed submissions over 64 TLS connections, each answered when it is synced; against a server that does nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{NO_POOL, Setting};
use crate::{
    Result,
    agent::Agent,
    constant::Constant,
    docker::Peers,
    stats::{Goal, Row, Unit, ms},
    wire::{Conn, post},
};

const CONNECTIONS: usize = 64;

pub async fn row(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let agent =
        setting.agent(&format!("max_concurrent_jobs: 1\nmax_queue_depth: 1000000\n{NO_POOL}")).await?;
    // All that follow wait behind it.
    agent.client()?.submit(&agent.job("sleep 250")).await?;
    let constant = Constant::start(setting.root).await?;
    let length = Duration::from_secs_f64(setting.scale.submit_seconds);
    let mut to_agent = connections(agent.port, &agent.tls).await?;
    let mut to_constant = connections(constant.port, &constant.tls).await?;
    let (mut ours, mut peer, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting.scale.rounds {
        let requests = signed(&agent, length)?;
        let (rate, _) = round(&mut to_constant, &requests, length).await?;
        peer.push(rate);
        let (rate, mut took) = round(&mut to_agent, &requests, length).await?;
        ours.push(rate);
        waits.append(&mut took);
    }
    waits.sort_by(f64::total_cmp);
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or(f64::NAN);
    let note =
        format!("one submission takes {:.2} ms (p50), {:.2} ms (p99); every answer was 202", at(50), at(99));
    agent.finish(peers).await?;
    Ok(Row {
        name: "signed_submissions_a_second",
        unit: Unit::ASecond,
        ours,
        peer,
        peer_name: "same server, constant answer",
        goal: Goal::AtLeastOfPeer(0.5),
        note,
    })
}

async fn connections(port: u16, tls: &Arc<rustls::ClientConfig>) -> Result<Vec<Conn>> {
    let mut open = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        open.push(Conn::open(port, tls).await?);
    }
    Ok(open)
}

/// More requests than a round can use, signed beforehand.
fn signed(agent: &Agent, length: Duration) -> Result<Vec<Vec<u8>>> {
    let most = length.as_millis() * 60;
    (0..most).map(|_| Ok(post(&agent.signed(&agent.job("true"))?))).collect()
}

/// Each connection sends its share, one request at a time, until the time is over; answers a second, and the
/// milliseconds of each.
async fn round(conns: &mut Vec<Conn>, requests: &[Vec<u8>], length: Duration) -> Result<(f64, Vec<f64>)> {
    let begun = Instant::now();
    let share = requests.len() / conns.len();
    let mut tasks = tokio::task::JoinSet::new();
    for (mut conn, mine) in conns.drain(..).zip(requests.chunks(share)) {
        let mine = mine.to_vec();
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(mine.len());
            for request in mine {
                if begun.elapsed() >= length {
                    break;
                }
                let sent = Instant::now();
                let (status, body) = conn.send(&request).await?;
                if status != 202 {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
                }
                took.push(ms(sent.elapsed()));
            }
            Result::Ok((conn, took))
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (conn, mut took) = done??;
        conns.push(conn);
        all.append(&mut took);
    }
    let rate = f64::from(u32::try_from(all.len())?) / begun.elapsed().as_secs_f64();
    Ok((rate, all))
}
