//! The operator's way into the running agent: a Unix socket in the data folder, for its owner and root only.
//! One line of JSON in, one line out: `{"command": "status" | "drain" | "undrain" | {"create_token": {...}} |
//! {"revoke_token": {"id": ...}}}`. The text of a token never comes here, only its hash.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::AgentError;
use crate::{
    base::clock::Timestamp,
    jobs::Service,
    store::tokens::{MOST, TokenRow},
    wire::{rights::Rights, token},
};

/// Longest line, in bytes.
const LINE: u64 = 4096;
/// Longest conversation.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command {
    Status,
    Drain,
    Undrain,
    CreateToken(NewToken),
    RevokeToken { id: String },
}

/// A token that is to be good from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    pub digest: [u8; 32],
    pub name: Option<String>,
    pub controller_id: Option<String>,
    pub scopes: Rights,
    /// Unix nanoseconds.
    pub expires_at: Timestamp,
}

impl NewToken {
    /// As the record has it.
    pub(super) fn row(self, now: Timestamp) -> TokenRow {
        TokenRow {
            id: token::id(&self.digest),
            digest: self.digest,
            name: self.name,
            controller_id: self.controller_id,
            rights: self.scopes,
            created_at: now,
            expires_at: self.expires_at,
            revoked_at: None,
            last_used_at: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    command: Command,
}

/// How the agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// `serving`, `draining` or `stopping`.
    pub mode: String,
    pub running: usize,
    pub queued: usize,
    /// What `/ready` says is in the way.
    pub problems: Vec<String>,
    pub pid: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Standing(Standing),
    /// The token is there, or is gone.
    Done,
    Error(String),
}

/// Why there is no further token.
pub(super) fn too_many_tokens() -> String {
    format!("there are {MOST} tokens that are good: revoke some first")
}

/// Why none was revoked.
pub(super) fn no_such_token(id: &str, known: bool) -> String {
    match known {
        true => format!("token {id} was revoked before"),
        false => format!("there is no token {id}: `token list` shows their ids"),
    }
}

/// The socket of the agent with that data folder.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control")
}

/// Opens the socket. One that lies there is of an earlier life: the database's lock is ours.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else can reach it before its mode is set: the data folder is the owner's alone.
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one caller after the other, until the token is cancelled.
pub(super) async fn serve(listener: UnixListener, service: Service, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket takes no connection now");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
        };
        let talk = tokio::time::timeout(PATIENCE, talk(stream, &service)).await;
        if let Err(error) = talk.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            tracing::debug!(%error, "a caller of the control socket was not answered");
        }
    }
}

async fn talk(stream: UnixStream, service: &Service) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != 0 && caller != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = caller, "a caller of the control socket is neither its owner nor root");
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => obey(request.command, service).await,
        Err(error) => Answer::Error(format!("this is no request: {error}")),
    };
    let mut text = serde_json::to_string(&answer).map_err(io::Error::other)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

async fn obey(command: Command, service: &Service) -> Answer {
    let done = match &command {
        Command::Status => true,
        Command::Drain => service.drain(),
        Command::Undrain => service.undrain(),
        Command::CreateToken(new) => return create(new.clone(), service).await,
        Command::RevokeToken { id } => return revoke(id, service).await,
    };
    if !done {
        return Answer::Error("the agent is stopping: that can't be taken back, start it anew".to_owned());
    }
    if command != Command::Status {
        tracing::info!(?command, "told so by the control socket");
    }
    let counts = service.counts();
    Answer::Standing(Standing {
        mode: service.mode().as_str().to_owned(),
        running: counts.running,
        queued: counts.queued,
        problems: service.ready().problems,
        pid: std::process::id(),
    })
}

async fn create(new: NewToken, service: &Service) -> Answer {
    if let Some(controller) = &new.controller_id
        && !service.knows(controller)
    {
        return Answer::Error(format!(
            "the running agent knows no controller {controller:?}: reload it first"
        ));
    }
    let row = new.row(Timestamp::now());
    let (id, scopes) = (row.id.clone(), row.rights.to_string());
    match service.create_token(row).await {
        Ok(true) => {
            tracing::info!(id, scopes, "a token was made");
            Answer::Done
        }
        Ok(false) => Answer::Error(too_many_tokens()),
        Err(error) => Answer::Error(error.to_string()),
    }
}

async fn revoke(id: &str, service: &Service) -> Answer {
    match service.revoke_token(id).await {
        Ok(Some(true)) => {
            tracing::info!(id, "a token was revoked");
            Answer::Done
        }
        Ok(known) => Answer::Error(no_such_token(id, known.is_some())),
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// Asks the running agent how it stands, after doing as it is told.
///
/// # Errors
/// `Refused`: no agent runs on that data folder, the caller may not ask it, or it says no.
pub(super) async fn ask(data_dir: &Path, command: Command) -> Result<Standing, AgentError> {
    match speak(data_dir, command).await? {
        Answer::Standing(standing) => Ok(standing),
        Answer::Done => Err(AgentError::Refused("the agent answered something else".to_owned())),
        Answer::Error(why) => Err(AgentError::Refused(why)),
    }
}

/// Tells the running agent to change its tokens.
///
/// # Errors
/// See [`ask`].
pub(super) async fn tell(data_dir: &Path, command: Command) -> Result<(), AgentError> {
    match speak(data_dir, command).await? {
        Answer::Done => Ok(()),
        Answer::Standing(_) => Err(AgentError::Refused("the agent answered something else".to_owned())),
        Answer::Error(why) => Err(AgentError::Refused(why)),
    }
}

async fn speak(data_dir: &Path, command: Command) -> Result<Answer, AgentError> {
    let path = path(data_dir);
    let refused = |error: io::Error| {
        AgentError::Refused(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no agent runs on {}: start it first", data_dir.display())
            }
            io::ErrorKind::PermissionDenied => {
                format!("{} is for the agent's user and root only: use sudo", path.display())
            }
            _ => format!("the agent does not answer on {}: {error}", path.display()),
        })
    };
    let conversation = async {
        let (read, mut write) = UnixStream::connect(&path).await?.into_split();
        let mut text = serde_json::to_string(&Request { command }).map_err(io::Error::other)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(read.take(1 << 20)).read_line(&mut line).await?;
        serde_json::from_str::<Answer>(&line).map_err(io::Error::other)
    };
    // Somebody else may be talking to it.
    tokio::time::timeout(3 * PATIENCE, conversation)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(refused)
}
