//! Who calls which agent: flags over environment over file. Files with secrets must not be readable
//! for everybody.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

use super::{args::Global, exits, fault::Fault, out};
use crate::{
    client::{Client, Identity, Settings, Trust},
    wire::{key::SigningKey, token},
};

/// No secret is longer; what is was not meant as one.
const MAX_SECRET: u64 = 64 << 10;

/// The configuration file. Every field may be given otherwise.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    url: Option<String>,
    controller_id: Option<String>,
    key_id: Option<String>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    ca: Option<PathBuf>,
    fingerprint: Option<String>,
    insecure: bool,
    /// Addresses jobs and cancellations to this agent only (`agent_id`).
    agent_id: Option<String>,
}

/// A client, and what else the file says about jobs.
pub struct Connection {
    pub client: Client,
    pub agent_id: Option<String>,
}

/// What the caller needs a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To sign jobs.
    Key,
    /// To read, or to end a job: a bearer token is enough.
    KeyOrToken,
    /// Nothing: the question is open to anybody.
    Nothing,
}

/// Puts flags, environment and file together.
pub fn connect(global: &Global, need: Need) -> Result<Connection, Fault> {
    let file = read_config(global)?;
    let url = global.url.clone().or(file.url).ok_or_else(|| {
        Fault::new(exits::CONFIG, "no agent is named").hint(
            "give --url https://HOST:8443, or QUICKCMD_URL, or `url:` in ~/.config/quickcmd/config.yaml",
        )
    })?;
    let url = Url::parse(&url).map_err(|error| {
        Fault::new(exits::CONFIG, format!("{url} is no address: {error}"))
            .hint("it has the form https://HOST:8443")
    })?;
    let controller_id = global.controller_id.clone().or(file.controller_id);
    let mut settings = Settings::new(url, controller_id.clone().unwrap_or_default());
    let own =
        global.client_cert.clone().or(file.client_cert).zip(global.client_key.clone().or(file.client_key));
    if let Some((cert, key)) = own {
        check_private(&key)?;
        settings.identity = Some(Identity { cert, key });
    }
    if need == Need::KeyOrToken {
        settings.token = token(global, file.token, file.token_file)?.map(SecretString::from);
    }
    // The certificate may be proof enough; whoever has a key as well uses that.
    let certified = settings.identity.is_some() && controller_id.is_none();
    if need == Need::Key || (need == Need::KeyOrToken && settings.token.is_none() && !certified) {
        if controller_id.is_none() {
            return Err(Fault::new(exits::CONFIG, "no controller's id is given")
                .hint("give --controller-id, or QUICKCMD_CONTROLLER_ID: one that the agent's allowed_controllers lists"));
        }
        let secret = secret(global, file.secret, file.secret_file)?;
        let key = key(&secret)?;
        settings.key = Some(match global.key_id.clone().or(file.key_id) {
            Some(key_id) => key.named(key_id),
            None => key,
        });
    }
    settings.trust = if global.insecure
        || (file.insecure && global.ca.is_none() && global.fingerprint.is_none())
    {
        out::note(
            "warning: --insecure: the agent's certificate is not checked; whoever stands between reads everything",
        );
        Trust::Anyone
    } else if let Some(fingerprint) = &global.fingerprint {
        Trust::fingerprint(fingerprint)?
    } else if let Some(ca) = global.ca.clone() {
        Trust::File(ca)
    } else if let Some(fingerprint) = &file.fingerprint {
        Trust::fingerprint(fingerprint)?
    } else if let Some(ca) = file.ca {
        Trust::File(ca)
    } else {
        Trust::System
    };
    if let Some(patience) = global.patience {
        settings.retry.patience = patience;
    }
    Ok(Connection { client: Client::new(settings)?, agent_id: file.agent_id })
}

fn read_config(global: &Global) -> Result<File, Fault> {
    let (path, asked) = match &global.config {
        Some(path) => (path.clone(), true),
        None => match usual_places().into_iter().find(|path| path.exists()) {
            Some(path) => (path, false),
            None => return Ok(File::default()),
        },
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // The system's file may be for others; then this user brings everything along.
        Err(error) if !asked && error.kind() == io::ErrorKind::PermissionDenied => return Ok(File::default()),
        Err(error) => {
            return Err(Fault::new(exits::NO_INPUT, format!("cannot read {}: {error}", path.display())));
        }
    };
    let wrong = |why: String| Fault::new(exits::CONFIG, format!("{}: {why}", path.display()));
    let file: File = if text.trim().is_empty() {
        File::default()
    } else {
        serde_saphyr::from_str(&text).map_err(|error| {
            wrong(without_source(&error.to_string()))
                .hint("docs/cli.md lists the keys of the configuration file")
        })?
    };
    if file.secret.is_some() || file.token.is_some() {
        check_private(&path)?;
    }
    Ok(file)
}

/// The parser shows the lines around the fault, which may hold the secret: keep the sentence only.
fn without_source(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

fn usual_places() -> Vec<PathBuf> {
    let own = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let mut places: Vec<PathBuf> = own.into_iter().map(|dir| dir.join("quickcmd/config.yaml")).collect();
    places.push(PathBuf::from("/etc/quickcmd/controller.yaml"));
    places
}

fn secret(global: &Global, inline: Option<String>, file: Option<PathBuf>) -> Result<String, Fault> {
    if let Some(path) = &global.secret_file {
        return read_secret(path);
    }
    if let Ok(secret) = env::var("QUICKCMD_SECRET") {
        return Ok(secret.trim().to_owned());
    }
    if let Some(path) = env::var_os("QUICKCMD_SECRET_FILE") {
        return read_secret(Path::new(&path));
    }
    if let Some(secret) = inline {
        return Ok(secret.trim().to_owned());
    }
    if let Some(path) = file {
        return read_secret(&path);
    }
    Err(Fault::new(exits::CONFIG, "no secret is given")
        .hint("give --secret-file FILE, or QUICKCMD_SECRET_FILE or QUICKCMD_SECRET: the agent's hmac_secret"))
}

/// The bearer token, if one is given.
fn token(global: &Global, inline: Option<String>, file: Option<PathBuf>) -> Result<Option<String>, Fault> {
    let text = if let Some(path) = &global.token_file {
        read_secret(path)?
    } else if global.secret_file.is_some() {
        // A key that is named on the command line is meant before a token that lies somewhere.
        return Ok(None);
    } else if let Ok(token) = env::var("QUICKCMD_TOKEN") {
        token.trim().to_owned()
    } else if let Some(path) = env::var_os("QUICKCMD_TOKEN_FILE") {
        read_secret(Path::new(&path))?
    } else if let Some(token) = inline {
        token.trim().to_owned()
    } else if let Some(path) = file {
        read_secret(&path)?
    } else {
        return Ok(None);
    };
    // `token create` prints a second line, which may have been kept with it.
    let text = text.lines().next().unwrap_or_default().trim().to_owned();
    if token::digest(&text).is_none() {
        return Err(Fault::new(exits::CONFIG, "the token is none: it is `qca_` and 64 hex digits")
            .hint("on the agent's host, quickcmd-agent token create makes one"));
    }
    Ok(Some(text))
}

fn read_secret(path: &Path) -> Result<String, Fault> {
    let fault = |error: io::Error| {
        Fault::new(exits::NO_INPUT, format!("cannot read the secret from {}: {error}", path.display()))
    };
    check_private(path)?;
    let mut text = String::new();
    fs::File::open(path).map_err(fault)?.take(MAX_SECRET).read_to_string(&mut text).map_err(fault)?;
    Ok(text.trim().to_owned())
}

/// Refuses a file with a secret that everybody may read or change.
fn check_private(path: &Path) -> Result<(), Fault> {
    let meta = fs::metadata(path).map_err(|error| {
        Fault::new(exits::NO_INPUT, format!("cannot read the secret from {}: {error}", path.display()))
    })?;
    if meta.is_file() && meta.mode() & 0o006 != 0 {
        return Err(Fault::new(
            exits::CONFIG,
            format!(
                "{} holds a secret and is open to everybody (mode {:o})",
                path.display(),
                meta.mode() & 0o777
            ),
        )
        .hint(format!("chmod 600 {}; if others could have read it, make a new secret", path.display())));
    }
    Ok(())
}

/// `ed25519:` and 64 hex digits is an Ed25519 seed; all else is an HMAC secret, its text as it stands.
fn key(secret: &str) -> Result<SigningKey, Fault> {
    if secret.is_empty() {
        return Err(Fault::new(exits::CONFIG, "the secret is empty").hint("quickcmd gen-key makes one"));
    }
    let Some(digits) = secret.strip_prefix("ed25519:") else {
        return Ok(SigningKey::hmac(secret.as_bytes()));
    };
    let mut seed = [0; 32];
    hex::decode_to_slice(digits.trim(), &mut seed).map_err(|_| {
        Fault::new(exits::CONFIG, "the Ed25519 key is not `ed25519:` and 64 hex digits")
            .hint("quickcmd gen-key --ed25519 --out FILE makes one")
    })?;
    Ok(SigningKey::ed25519(&seed))
}
