//! Many readers of one job against one: what the job itself takes.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{Setting, output};
use crate::{
    Result,
    agent::Agent,
    docker::Peers,
    stats::{Goal, Row, Unit},
    wire::Conn,
};

pub async fn row(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let (readers, bytes) = (setting.scale.readers, setting.scale.shared_bytes);
    let agent = setting
        .agent(
            "read_access: job-id\noutput: { limit: 1 GiB, result_bytes: 1024 }\nconnections: { max: 4096 }",
        )
        .await?;
    let (mut ours, mut peer, mut delivered) = (Vec::new(), Vec::new(), 0);
    for _ in 0..setting.scale.rounds {
        peer.push(run(&agent, 1, bytes).await?.0);
        let (took, got) = run(&agent, readers, bytes).await?;
        ours.push(took);
        delivered += got / setting.scale.rounds as u64;
    }
    agent.finish(peers).await?;
    Ok(Row {
        name: "readers_1000_of_one_100_mb_job",
        unit: Unit::Milliseconds,
        ours,
        peer,
        peer_name: "one reader",
        goal: Goal::AtMostOfPeer(1.1),
        note: format!(
            "{readers} readers of a job that prints {} MB; its own time. They had read {} MB in all when it ended",
            bytes / 1_000_000,
            delivered / 1_000_000
        ),
    })
}

/// The job's own milliseconds, and what its readers had got by its end.
async fn run(agent: &Agent, readers: usize, bytes: u64) -> Result<(f64, u64)> {
    let client = agent.client()?;
    // It waits until all are connected: its own clock starts with the output.
    let command = format!("sleep 1; {}", output::print(bytes));
    let job = agent.job_with_cores(&command, 2.0);
    let mut conns = Vec::with_capacity(readers);
    for _ in 0..readers {
        conns.push(Conn::open(agent.port, &agent.tls).await?);
    }
    client.submit(&job).await?;
    let mut tasks: JoinSet<Result<u64>> = JoinSet::new();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for conn in conns {
        let (id, ended) = (job.job_id.clone(), ended.clone());
        tasks.spawn(async move { read(conn, &id, &ended).await });
    }
    let result = loop {
        let status = client.status(&job.job_id).await?;
        match status.result {
            Some(result) => break result,
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    if result.stdout_bytes != bytes || result.exit_code != 0 {
        return Err(format!("the job did not print all: {result:?}").into());
    }
    let mut got = 0;
    while let Some(read) = tasks.join_next().await {
        got += read??;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let took = result.duration_ms as f64 - 1000.0;
    Ok((took, got))
}

/// Bytes that came until the job had ended; then it goes away. What the frames hold is not looked at: a thousand
/// clients would need more than this machine.
async fn read(conn: Conn, id: &str, ended: &std::sync::atomic::AtomicBool) -> Result<u64> {
    let mut io = conn.into_inner();
    io.write_all(
        format!(
            "GET /api/v1/stream/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .as_bytes(),
    )
    .await?;
    io.flush().await?;
    let mut buffer = vec![0; 32 << 10];
    let mut got = 0u64;
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        match tokio::time::timeout(Duration::from_secs(5), io.read(&mut buffer)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(count)) => {
                if got == 0 && !buffer.starts_with(b"HTTP/1.1 101") {
                    let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    return Err(format!("no stream: {said}").into());
                }
                got += count as u64;
            }
            // The agent takes a reader that answers no close frame as gone.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(got)
}
