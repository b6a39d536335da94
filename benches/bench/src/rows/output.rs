//! Output through to a reader: the job prints text, a client takes every byte of it out of the frames.

use std::{borrow::Cow, time::Instant};

use futures_util::StreamExt;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig};

use super::Setting;
use crate::{
    Result,
    agent::Agent,
    docker::Peers,
    stats::{Goal, Row, Unit},
    wire::Conn,
};

/// Both have all of the machine.
const CORES: f64 = 2.0;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    r#final: bool,
}

/// What the job writes at once; it prints a multiple of this.
pub const BLOCK: u64 = 64 << 10;

/// Prints that many bytes of lines, with as little of the processor as can be: it is not the job that is measured.
/// (`head -c` of busybox takes 8 ms for a megabyte.)
pub fn print(bytes: u64) -> String {
    let blocks = bytes / BLOCK;
    format!(
        "yes 'a line of text as programs print them, 64 characters with its end.' \
         | dd bs={BLOCK} count={blocks} iflag=fullblock 2>/dev/null"
    )
}

pub async fn row(setting: &Setting<'_>, peers: &Peers) -> Result<Row> {
    let bytes = setting.scale.output_bytes;
    let agent = setting.agent("read_access: job-id\noutput: { limit: 1 GiB, result_bytes: 1024 }").await?;
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..setting.scale.rounds {
        let begun = Instant::now();
        let ran = peers.run(&print(bytes), Some(CORES)).await?;
        if ran.bytes != bytes {
            return Err(format!("docker run gave {} bytes of {bytes}", ran.bytes).into());
        }
        peer.push(megabytes(bytes, begun));
        ours.push(read(&agent, bytes).await?);
    }
    agent.finish(peers).await?;
    Ok(Row {
        name: "output_through_to_a_reader",
        unit: Unit::MegabytesASecond,
        ours,
        peer,
        peer_name: "docker run attached, log driver none",
        goal: Goal::AtLeastOfPeer(2.0),
        note: format!("{} MB of text, from the submission (or command) to the last byte", bytes / 1_000_000),
    })
}

async fn read(agent: &Agent, bytes: u64) -> Result<f64> {
    let job = agent.job_with_cores(&print(bytes), CORES);
    let begun = Instant::now();
    agent.client()?.submit(&job).await?;
    let request = format!("wss://localhost:{}/api/v1/stream/{}?system=false", agent.port, job.job_id);
    let conn = Conn::open(agent.port, &agent.tls).await?;
    let config = WebSocketConfig::default().read_buffer_size(128 << 10);
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(
        request.into_client_request()?,
        conn.into_inner(),
        Some(config),
    )
    .await?;
    let mut read = 0u64;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let frame: Frame<'_> = serde_json::from_str(&text)?;
        if frame.r#final {
            if read != bytes {
                return Err(format!("the reader got {read} bytes of {bytes}").into());
            }
            return Ok(megabytes(bytes, begun));
        }
        read += frame.data.len() as u64;
    }
    Err("a stream without a final frame".into())
}

fn megabytes(bytes: u64, begun: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bytes = bytes as f64;
    bytes / 1e6 / begun.elapsed().as_secs_f64()
}
