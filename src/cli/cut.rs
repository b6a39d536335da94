//! Output that the agent did not keep whole: what is said of it, and where it is said.

use super::out;
use crate::wire::JobResult;

/// How much of one stream was kept, and how much dropped beyond the agent's limit.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub name: &'static str,
    pub kept: u64,
    pub dropped: u64,
    pub truncated: bool,
}

/// What the result says of stdout and of stderr.
pub fn streams(result: &JobResult) -> [Stream; 2] {
    [
        Stream {
            name: "stdout",
            kept: result.stdout_bytes,
            dropped: result.stdout_dropped,
            truncated: result.stdout_truncated || result.stdout_dropped > 0,
        },
        Stream {
            name: "stderr",
            kept: result.stderr_bytes,
            dropped: result.stderr_dropped,
            truncated: result.stderr_truncated || result.stderr_dropped > 0,
        },
    ]
}

/// One sentence on standard error if any of those streams was cut. The job's exit code stays what it is:
/// a command that printed too much has still succeeded or failed by its own judgement.
pub fn warn(streams: &[Stream]) {
    if let Some(text) = sentence(streams) {
        out::note(&text);
    }
}

fn sentence(streams: &[Stream]) -> Option<String> {
    let cut: Vec<String> = streams
        .iter()
        .filter(|stream| stream.truncated)
        .map(|stream| {
            format!(
                "the first {} bytes of {} were kept and {} dropped",
                stream.kept, stream.name, stream.dropped
            )
        })
        .collect();
    (!cut.is_empty()).then(|| {
        format!(
            "warning: the output was cut by the agent: {} (output.limit in the agent's configuration says how much it keeps)",
            cut.join(", ")
        )
    })
}
