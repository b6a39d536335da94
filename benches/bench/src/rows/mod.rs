//! The rows, a file a group. Each measures ours and the peer's in turns, so that whatever else the machine does
//! hits both.

mod containers;
mod history;
mod memory;
mod output;
mod readers;
mod reuse;
mod submissions;
mod warm;

use std::path::Path;

use crate::{Result, agent::Agent, docker::Peers, stats::Row};

/// No pool: every job's container is made when its turn has come.
const NO_POOL: &str = "pool: { size: 0, max: 0 }";

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Jobs of each latency row.
    jobs: usize,
    /// Rounds of each throughput row.
    rounds: usize,
    /// Containers of a round.
    containers: usize,
    /// Jobs of a round in sandboxes that are used again.
    again: usize,
    /// Length of a round of submissions, in seconds.
    submit_seconds: f64,
    /// Bytes of the job that is read.
    output_bytes: u64,
    readers: usize,
    /// Bytes of the job that all of them read.
    shared_bytes: u64,
    /// Jobs of the long record.
    history: u32,
    starts: usize,
    reads: usize,
}

impl Scale {
    pub fn full() -> Scale {
        Scale {
            jobs: 100,
            rounds: 5,
            containers: 60,
            again: 10_000,
            submit_seconds: 5.0,
            output_bytes: 3200 * output::BLOCK,
            readers: 1000,
            shared_bytes: 1600 * output::BLOCK,
            history: 1_000_000,
            starts: 10,
            reads: 300,
        }
    }

    /// Two minutes for all.
    pub fn quick() -> Scale {
        Scale {
            jobs: 12,
            rounds: 3,
            containers: 16,
            again: 2_000,
            submit_seconds: 1.5,
            output_bytes: 800 * output::BLOCK,
            readers: 200,
            shared_bytes: 320 * output::BLOCK,
            history: 100_000,
            starts: 3,
            reads: 100,
        }
    }
}

/// Where and what is measured.
pub struct Setting<'a> {
    pub root: &'a Path,
    /// The agent's program.
    pub program: &'a Path,
    pub image: &'a str,
    pub scale: Scale,
}

impl Setting<'_> {
    /// A started agent with these lines in its configuration.
    async fn agent(&self, more: &str) -> Result<Agent> {
        Agent::start(self.root, self.program, self.image, more).await
    }

    /// One whose controller may use a sandbox again.
    async fn trusted_agent(&self, more: &str) -> Result<Agent> {
        let mut agent = Agent::prepare_trusted(self.root, self.program, self.image, 1_000_000, more)?;
        agent.launch()?;
        agent.until_ready().await?;
        Ok(agent)
    }

    fn prepare(&self, more: &str) -> Result<Agent> {
        Agent::prepare(self.root, self.program, self.image, more)
    }
}

/// All rows, or those of the groups that are named; and what went wrong, a group each, whose rows are missing.
pub async fn all(
    setting: &Setting<'_>,
    peers: &mut Peers,
    only: &[String],
) -> Result<(Vec<Row>, Vec<String>)> {
    let agent = setting.agent(NO_POOL).await?;
    let folder = setting.root.join("peer");
    std::fs::create_dir_all(&folder)?;
    peers.copy_from(&agent, &folder).await?;
    agent.finish(peers).await?;

    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let groups =
        ["warm", "cold", "sustained", "reuse", "submissions", "output", "readers", "memory", "history"];
    for group in groups {
        if !only.is_empty() && !only.iter().any(|only| only == group) {
            continue;
        }
        let begun = std::time::Instant::now();
        let measured = match group {
            "warm" => warm::rows(setting, peers).await,
            "cold" => containers::cold(setting, peers).await.map(|row| vec![row]),
            "sustained" => containers::sustained(setting, peers).await.map(|row| vec![row]),
            "reuse" => reuse::row(setting, peers).await.map(|row| vec![row]),
            "submissions" => submissions::row(setting, peers).await.map(|row| vec![row]),
            "output" => output::row(setting, peers).await.map(|row| vec![row]),
            "readers" => readers::row(setting, peers).await.map(|row| vec![row]),
            "memory" => memory::rows(setting, peers).await,
            _ => history::rows(setting, peers).await,
        };
        eprintln!("{group}: {:.0} s", begun.elapsed().as_secs_f64());
        match measured {
            Ok(measured) => rows.extend(measured),
            Err(error) => failed.push(format!("{group}: {error}")),
        }
    }
    Ok((rows, failed))
}
