//! `token create`, `token list`, `token revoke`: bearer tokens, for who reads or operates without a controller's key.
//! The running agent is told over its control socket; without one the record is changed directly.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::{
    super::control::{self, Command, NewToken},
    AgentError, config, wait_for,
};
use crate::{
    base::clock::Timestamp,
    config::Config,
    store::{
        self, Lock, Store, StoreError,
        tokens::{self, TokenRow},
    },
    wire::{
        rights::{Right, Rights},
        token,
    },
};

/// Longest name, in bytes.
const NAME: usize = 128;

/// What `token create` is told.
#[derive(Debug)]
pub struct Wanted {
    pub scopes: Vec<Right>,
    pub ttl: Duration,
    /// The one controller whose jobs it is for.
    pub controller: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// A new file for the token, instead of standard output.
    pub out: Option<PathBuf>,
}

/// Makes a token, good at once; its text, which is shown this once.
///
/// # Errors
/// It would mean nothing (`admin` of one controller, a controller that is not configured), or can't be recorded.
pub fn create(path: &Path, wanted: Wanted) -> Result<String, AgentError> {
    let config = config(path)?;
    let refused = |why: String| Err(AgentError::Refused(why));
    let mut scopes = Rights::default();
    for scope in wanted.scopes {
        if !scopes.0.contains(&scope) {
            scopes.0.push(scope);
        }
    }
    if scopes.0.contains(&Right::Submit) {
        return refused("no token can submit: submissions are signed with a controller's key".to_owned());
    }
    if let Some(controller) = &wanted.controller {
        if scopes.0.contains(&Right::Admin) {
            return refused("admin is for all controllers: leave --controller out".to_owned());
        }
        if !config.gate.controllers.iter().any(|known| known.id == *controller) {
            return refused(format!("the configuration has no controller {controller:?}"));
        }
    }
    if wanted.name.as_ref().is_some_and(|name| name.len() > NAME || name.chars().any(char::is_control)) {
        return refused(format!("--name may have {NAME} bytes at most, and no control characters"));
    }
    let text = token::generate();
    let digest =
        token::digest(&text).ok_or_else(|| AgentError::Internal("a new token is none".to_owned()))?;
    let expires_at = Timestamp::now().plus(wanted.ttl);
    let new = NewToken { digest, name: wanted.name, controller_id: wanted.controller, scopes, expires_at };
    // First the file: a token that nobody has is better than one that nobody can note down.
    if let Some(out) = &wanted.out {
        write(out, &text)?;
    }
    let row = new.clone().row(Timestamp::now());
    let changed = change(&config, Command::CreateToken(new), |store| {
        let row = row.clone();
        async move {
            let created = store.write(move |tx| tokens::create(tx, &row)).await?;
            created.then_some(()).ok_or_else(|| AgentError::Refused(control::too_many_tokens()))
        }
    });
    if let (Err(_), Some(out)) = (&changed, &wanted.out) {
        let _ = std::fs::remove_file(out);
    }
    changed?;
    let about = format!(
        "token {} for {} of {} until {}",
        row.id,
        row.rights,
        row.controller_id
            .as_ref()
            .map_or_else(|| "all controllers".to_owned(), |id| format!("controller {id:?}")),
        row.expires_at.rfc3339()
    );
    Ok(match &wanted.out {
        // Standard output has the token alone, for `$(...)`; who can't be told the rest finds it in the list.
        None => {
            let _ = writeln!(std::io::stderr(), "{about}; it is not shown again");
            text
        }
        Some(out) => format!("{about}, written to {}", out.display()),
    })
}

fn write(out: &Path, text: &str) -> Result<(), AgentError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()))
        .map_err(AgentError::io(format!("could not write {}", out.display())))
}

/// Lists the tokens, the newest first; never their text, which is nowhere.
///
/// # Errors
/// The record can't be read.
pub fn list(path: &Path, json: bool) -> Result<String, AgentError> {
    let database = config(path)?.audit_db_path;
    let rows = store::look(&database, tokens::all)?;
    let now = Timestamp::now();
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({
                    "id": row.id, "name": row.name, "scopes": row.rights, "controller_id": row.controller_id,
                    "state": state(row, now), "created_at": row.created_at.rfc3339(),
                    "expires_at": row.expires_at.rfc3339(), "revoked_at": row.revoked_at.map(Timestamp::rfc3339),
                    "last_used_at": row.last_used_at.map(Timestamp::rfc3339),
                })
            })
            .collect();
        return Ok(json!({"tokens": rows}).to_string());
    }
    let day = |at: Timestamp| at.rfc3339().chars().take(16).collect::<String>() + "Z";
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{}  {:8}  {}  {}  until {}  last used {}  {}",
                row.id,
                state(row, now),
                row.rights,
                row.controller_id
                    .as_deref()
                    .map_or_else(|| "all controllers".to_owned(), |id| format!("controller {id}")),
                day(row.expires_at),
                row.last_used_at.map_or_else(|| "never".to_owned(), day),
                row.name.as_deref().unwrap_or("-"),
            )
        })
        .collect();
    let good = rows.iter().filter(|row| state(row, now) == "good").count();
    lines.push(format!("{} tokens, {good} good", rows.len()));
    Ok(lines.join("\n"))
}

fn state(row: &TokenRow, now: Timestamp) -> &'static str {
    match row {
        TokenRow { revoked_at: Some(_), .. } => "revoked",
        row if row.expires_at < now => "expired",
        _ => "good",
    }
}

/// Revokes a token: from now on it is no proof.
///
/// # Errors
/// There is none of that id, or it was revoked before; the record can't be written.
pub fn revoke(path: &Path, id: &str) -> Result<String, AgentError> {
    let config = config(path)?;
    change(&config, Command::RevokeToken { id: id.to_owned() }, |store| {
        let (id, now) = (id.to_owned(), Timestamp::now());
        async move {
            let name = id.clone();
            match store.write(move |tx| tokens::revoke(tx, &id, now)).await? {
                Some(true) => Ok(()),
                known => Err(AgentError::Refused(control::no_such_token(&name, known.is_some()))),
            }
        }
    })?;
    Ok(format!("token {id} is revoked"))
}

/// By the running agent, else by itself.
fn change<F>(config: &Config, command: Command, alone: impl Fn(Store) -> F) -> Result<(), AgentError>
where
    F: Future<Output = Result<(), AgentError>>,
{
    let database = &config.audit_db_path;
    if !database.exists() {
        return Err(StoreError::Missing { file: database.display().to_string() }.into());
    }
    match Lock::take(database) {
        Ok(lock) => drop(lock),
        Err(StoreError::InUse { .. }) => {
            return wait_for(control::tell(&config.data_dir, command));
        }
        Err(error) => return Err(error.into()),
    }
    wait_for(async {
        let store = Store::open(database)?;
        let changed = alone(store.clone()).await;
        let closed = store.close().await;
        changed?;
        Ok(closed?)
    })
}
