//! Reading what jobs have left: one file, or all of them as an archive.

use std::{collections::VecDeque, io, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use quickcmd_init::proto::Artifact;
use tokio_util::bytes::Bytes;

use super::{
    query::{self, SMALL, TRY_AGAIN},
    service::storage_error,
    shared::Shared,
    tar,
};
use crate::{
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
    },
    gate::Reader,
    output::{Kept, Outputs},
    store::jobs::{self, Job},
    wire::{Code, Problem},
};

/// Bytes of memory for each byte of a list: itself, and what is made of it, in which a short path takes more than it did.
const MEMORY: usize = 3;

/// One file that a job has left.
#[derive(Debug)]
pub struct ArtifactFile {
    pub bytes: Kept,
    /// In hex.
    pub sha256: String,
}

/// All files that a job has left, as an archive in the format of `tar`.
#[derive(Debug)]
pub struct Archive {
    outputs: Arc<Outputs>,
    row: i64,
    at: Timestamp,
    files: VecDeque<File>,
    len: u64,
    /// As long as the list is there: until the last of it was read, or nobody reads any more.
    held: Option<Held>,
}

#[derive(Debug)]
struct File {
    path: String,
    size: u64,
    mode: u32,
    at: u64,
}

/// The ended job and its list, and what that holds of the memory that all have, if it is long.
async fn listed(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    purse: &Purse,
) -> Result<(Job, Vec<Artifact>, Option<Held>), Problem> {
    let job = query::find(shared, reader, job_id).await?;
    if !job.state.is_final() {
        return Err(not_found("the job has not ended: its files are kept after its end"));
    }
    if job.purged_at.is_some() {
        return Err(gone());
    }
    let row = job.row;
    // After its end it changes no more, but for retention, which takes it away.
    let bytes = shared.store.read(move |db| jobs::artifacts_bytes(db, row)).await;
    let bytes = bytes.map_err(|error| storage_error(&error))?;
    let mut held = None;
    if bytes > SMALL {
        held = purse.take(bytes.saturating_mul(MEMORY)).await;
        if held.is_none() {
            return Err(Problem::new(Code::Busy)
                .details("too many long lists of artifacts are being read; try again later")
                .retry_after(TRY_AGAIN));
        }
    }
    let list =
        shared.store.read(move |db| jobs::artifacts(db, row)).await.map_err(|error| storage_error(&error))?;
    Ok((job, list, held))
}

fn not_found(why: &str) -> Problem {
    Problem::new(Code::ArtifactNotFound).details(why)
}

fn gone() -> Problem {
    Problem::new(Code::OutputGone)
        .details("the artifacts are no longer kept: they went with the output, whose time of retention is over or whose room was \
                  needed")
}

/// One file by its path, as it stands in the result; the slash before an absolute one may be left out.
pub(super) async fn one(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    path: &str,
    purse: &Purse,
) -> Result<ArtifactFile, Problem> {
    let (job, list, _held) = listed(shared, reader, job_id, purse).await?;
    // Two that differ in that slash alone can't be asked for.
    let short = |path: &str| path.strip_prefix('/').unwrap_or(path).to_owned();
    let wanted = short(path);
    let found = list.into_iter().find(|artifact| short(artifact.path()) == wanted);
    match found {
        Some(Artifact::Kept { size, sha256, at, .. }) => {
            let bytes = shared.outputs.artifact(job.row, at, size).map_err(|error| unread(job_id, &error))?;
            Ok(ArtifactFile { bytes, sha256 })
        }
        Some(Artifact::Refused { why, error, .. }) => {
            Err(not_found(&format!("it was not kept: {error}")).with("refused", why.as_str()))
        }
        None => Err(not_found("the job has kept no file of that path; its status lists what it has kept")),
    }
}

/// All of them.
pub(super) async fn all(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    purse: &Purse,
) -> Result<Archive, Problem> {
    let (job, list, mut held) = listed(shared, reader, job_id, purse).await?;
    let files: VecDeque<File> = list
        .into_iter()
        .filter_map(|artifact| match artifact {
            Artifact::Kept { path, size, mode, at, .. } => Some(File { path, size, mode, at }),
            Artifact::Refused { .. } => None,
        })
        .collect();
    let Some(first) = files.front() else {
        return Err(not_found("the job has kept no file"));
    };
    // Whether they are still there is known before the answer begins.
    shared.outputs.artifact(job.row, first.at, first.size).map_err(|error| unread(job_id, &error))?;
    let at = job.ended_at.unwrap_or(job.accepted_at);
    if let Some(held) = &mut held {
        held.shrink(files.iter().map(|file| size_of::<File>() + file.path.capacity()).sum());
    }
    let mut archive = Archive { outputs: Arc::clone(&shared.outputs), row: job.row, at, files, len: 0, held };
    let sizes = archive
        .files
        .iter()
        .map(|file| archive.header(file).len() as u64 + file.size + tar::padding(file.size).len() as u64);
    archive.len = sizes.sum::<u64>() + tar::END.len() as u64;
    Ok(archive)
}

fn unread(job_id: &str, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::NotFound {
        return gone();
    }
    tracing::error!(job_id, %error, "an artifact could not be read");
    Problem::new(Code::Internal)
}

impl Archive {
    /// Bytes of the whole.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds memory that others wait for.
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Never: a job without files has no archive.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn header(&self, file: &File) -> Vec<u8> {
        tar::header(file.path.trim_start_matches('/'), file.size, file.mode, self.at)
    }

    /// Its bytes, read when they are asked for.
    pub fn chunks(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let files = stream::unfold(self, |mut archive| async move {
            let file = archive.files.pop_front()?;
            let header = stream::iter([Ok(Bytes::from(archive.header(&file)))]);
            let body = match archive.outputs.artifact(archive.row, file.at, file.size) {
                Ok(kept) => kept.chunks(0..file.size).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            };
            let padding = stream::iter([Ok(Bytes::from(tar::padding(file.size)))]);
            Some((header.chain(body).chain(padding), archive))
        });
        files.flatten().chain(stream::iter([Ok(Bytes::from_static(&tar::END))]))
    }
}
