//! Every field's own rule, one function each. What needs the configuration is the gate's.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::Stdin;
use crate::wire::{
    Problem,
    fields::{Fields, invalid},
};

/// Characters of a job's id.
pub const MAX_JOB_ID: usize = 128;
/// Bytes of `prompt` and of `snapshot_metadata`.
pub const MAX_TEXT: usize = 65_536;
/// Bytes of `command`, which is one argument of a shell: Linux's own limit of one (`MAX_ARG_STRLEN`, 128 KiB) less the
/// ending NUL.
pub const MAX_COMMAND: usize = 131_071;
/// Items of `argv`.
pub const MAX_ARGV_ITEMS: usize = 1_024;
/// Bytes of one item of `argv`: as for `command`.
pub const MAX_ARGV_ITEM: usize = 131_071;
/// Bytes of all items of `argv` together.
pub const MAX_ARGV: usize = 524_288;
/// Items of `required_scopes`.
pub const MAX_SCOPES: usize = 64;
/// Bytes of `agent_id` and of one scope.
pub const MAX_NAME: usize = 256;
/// Bytes of an image's reference.
pub const MAX_IMAGE: usize = 512;
/// Entries of `env` and of `secret_env` each.
pub const MAX_ENV_ENTRIES: usize = 256;
/// Bytes of a variable's name.
pub const MAX_ENV_NAME: usize = 128;
/// Bytes of a variable's value.
pub const MAX_ENV_VALUE: usize = 65_536;
/// Bytes of all values of `secret_env` together: what searches for them takes memory in proportion.
pub const MAX_SECRETS: usize = 65_536;
/// Bytes of `workdir`.
pub const MAX_WORKDIR: usize = 1_024;
/// Bytes of a cancellation's `reason`.
pub const MAX_REASON: usize = 1_024;

/// The least share of a core that the kernel's scheduler can be told (1 ms of 100 ms).
pub const MIN_CPU: f64 = 0.01;
/// Docker takes 6 MiB, but supervisor and container setup do not start reliably below this.
pub const MIN_MEMORY: u64 = 16 << 20;
/// The supervisor and the command.
pub const MIN_PIDS: u64 = 2;
/// Seconds.
pub const MIN_TIMEOUT: u64 = 1;
/// A size of 0 would mean no limit to the kernel.
pub const MIN_TMPFS: u64 = 65_536;

/// Folders where no job may start: the kernel's, and the supervisor's.
pub(super) const FORBIDDEN_FOLDERS: &[&str] = &["/proc", "/sys", "/dev", "/.quickcmd"];

/// Whether the text is a job's id: 1 to 128 of `A-Za-z0-9._:-`.
pub fn is_job_id(text: &str) -> bool {
    (1..=MAX_JOB_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

pub(super) fn job_id(fields: &mut Fields<'_>) -> Result<String, Problem> {
    let text = fields.required_text("job_id")?;
    if is_job_id(&text) {
        Ok(text)
    } else {
        Err(fields.invalid("job_id", "must be 1 to 128 characters of A-Z, a-z, 0-9, `.`, `_`, `:` and `-`"))
    }
}

/// Free text; absent is empty.
pub(super) fn text(fields: &mut Fields<'_>, name: &str) -> Result<String, Problem> {
    let text = fields.text(name)?.unwrap_or_default();
    if text.len() > MAX_TEXT {
        return Err(fields.invalid(name, &format!("may have {MAX_TEXT} bytes at most")));
    }
    Ok(text)
}

/// A name: 1 to 256 bytes without control characters.
pub(super) fn name(fields: &mut Fields<'_>, name: &str) -> Result<Option<String>, Problem> {
    let text = fields.text(name)?;
    if text.as_deref().is_some_and(|text| !is_name(text)) {
        return Err(fields.invalid(name, "must be 1 to 256 bytes without control characters"));
    }
    Ok(text)
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(super) fn scopes(fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, Problem> {
    let scopes = fields.texts("required_scopes")?;
    if let Some(scopes) = &scopes {
        if scopes.len() > MAX_SCOPES {
            return Err(fields.invalid("required_scopes", &format!("may have {MAX_SCOPES} items at most")));
        }
        if let Some(index) = scopes.iter().position(|scope| !is_name(scope)) {
            let item = format!("required_scopes.{index}");
            return Err(fields.invalid(&item, "must be 1 to 256 bytes without control characters"));
        }
    }
    Ok(scopes)
}

/// `command` and `argv`: exactly one of the two; `command` may be empty or absent beside `argv`.
pub(super) fn command(fields: &mut Fields<'_>) -> Result<(String, Option<Vec<String>>), Problem> {
    let command = fields.text("command")?.unwrap_or_default();
    let argv = fields.texts("argv")?;
    match &argv {
        Some(_) if !command.is_empty() => {
            return Err(fields.invalid("argv", "stands beside a `command`: give exactly one of the two"));
        }
        Some(items) => check_argv(fields, items)?,
        None if command.is_empty() => {
            return Err(fields.invalid("command", "is empty or missing: give it, or `argv` instead"));
        }
        None => {}
    }
    if command.len() > MAX_COMMAND {
        let why = format!(
            "has {} bytes and may have {MAX_COMMAND} at most, the longest argument that Linux takes: send a longer \
             script as `stdin`, with the command `sh`",
            command.len()
        );
        return Err(fields.invalid("command", &why));
    }
    if command.contains('\0') {
        return Err(fields.invalid("command", "must not contain NUL"));
    }
    Ok((command, argv))
}

fn check_argv(fields: &Fields<'_>, items: &[String]) -> Result<(), Problem> {
    if !(1..=MAX_ARGV_ITEMS).contains(&items.len()) {
        return Err(fields.invalid("argv", &format!("must have 1 to {MAX_ARGV_ITEMS} items")));
    }
    if items[0].is_empty() {
        return Err(fields.invalid("argv.0", "names the program and must not be empty"));
    }
    for (index, item) in items.iter().enumerate() {
        if item.contains('\0') {
            return Err(fields.invalid(&format!("argv.{index}"), "must not contain NUL"));
        }
        if item.len() > MAX_ARGV_ITEM {
            let why = format!("may have {MAX_ARGV_ITEM} bytes at most");
            return Err(fields.invalid(&format!("argv.{index}"), &why));
        }
    }
    if items.iter().map(String::len).sum::<usize>() > MAX_ARGV {
        return Err(fields.invalid("argv", &format!("may have {MAX_ARGV} bytes in all at most")));
    }
    Ok(())
}

pub(super) fn image(fields: &mut Fields<'_>) -> Result<Option<String>, Problem> {
    let image = fields.text("image")?;
    if let Some(image) = &image
        && !((1..=MAX_IMAGE).contains(&image.len()) && image.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        let why = format!("must be an image reference of 1 to {MAX_IMAGE} visible ASCII characters");
        return Err(fields.invalid("image", &why));
    }
    Ok(image)
}

pub(super) fn cpu(fields: &mut Fields<'_>) -> Result<Option<f64>, Problem> {
    let Some(value) = fields.take("cpu_limit") else { return Ok(None) };
    match value.as_f64() {
        Some(cores) if cores.is_finite() && cores >= MIN_CPU => Ok(Some(cores)),
        _ => Err(fields.invalid("cpu_limit", &format!("must be a number of cores, at least {MIN_CPU}"))),
    }
}

/// One of the two maps of environment variables.
pub(super) fn env(fields: &mut Fields<'_>, name: &str) -> Result<Option<BTreeMap<String, String>>, Problem> {
    let Some(map) = fields.map(name)? else { return Ok(None) };
    if map.len() > MAX_ENV_ENTRIES {
        return Err(fields.invalid(name, &format!("may have {MAX_ENV_ENTRIES} entries at most")));
    }
    let mut env = BTreeMap::new();
    for (variable, value) in map {
        if !is_variable(&variable) {
            let why = format!(
                "has a name that is not 1 to {MAX_ENV_NAME} characters of A-Z, a-z, 0-9 and `_`, not a digit first"
            );
            return Err(fields.invalid(name, &why));
        }
        let path = format!("{name}.{variable}");
        match value {
            Value::String(text) if text.contains('\0') => {
                return Err(fields.invalid(&path, "must not contain NUL"));
            }
            Value::String(text) if text.len() > MAX_ENV_VALUE => {
                return Err(fields.invalid(&path, &format!("may have {MAX_ENV_VALUE} bytes at most")));
            }
            Value::String(text) => drop(env.insert(variable, text)),
            _ => return Err(fields.invalid(&path, "must be a text")),
        }
    }
    Ok(Some(env))
}

fn is_variable(text: &str) -> bool {
    (1..=MAX_ENV_NAME).contains(&text.len())
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(super) fn workdir(fields: &mut Fields<'_>) -> Result<Option<String>, Problem> {
    let folder = fields.text("workdir")?;
    if let Some(folder) = &folder {
        if folder.len() > MAX_WORKDIR || folder.chars().any(char::is_control) {
            let why = format!("must be a path of {MAX_WORKDIR} bytes at most, without control characters");
            return Err(fields.invalid("workdir", &why));
        }
        let Some(below_root) = folder.strip_prefix('/') else {
            return Err(fields.invalid("workdir", "must be an absolute path"));
        };
        if !below_root.is_empty() && below_root.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(fields.invalid("workdir", "must have no `.`, no `..`, no `//` and no `/` at its end"));
        }
        let forbidden = |root: &&&str| {
            folder.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(root) = FORBIDDEN_FOLDERS.iter().find(forbidden) {
            return Err(fields.invalid("workdir", &format!("must not lie in {root}")));
        }
    }
    Ok(folder)
}

pub(super) fn stdin(fields: &mut Fields<'_>) -> Result<Option<Stdin>, Problem> {
    match fields.take("stdin") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(Stdin::Text(text))),
        Some(Value::Object(map)) => base64_stdin(map).map(Some),
        Some(_) => Err(fields.invalid("stdin", "must be a text, or {\"base64\": \"...\"} for bytes")),
    }
}

fn base64_stdin(map: Map<String, Value>) -> Result<Stdin, Problem> {
    let mut fields = Fields::new("sandbox.stdin.", map, &["base64"])?;
    let base64 = fields.required_text("base64")?;
    match STANDARD.decode(&base64) {
        Ok(_) => Ok(Stdin::Base64 { base64 }),
        Err(error) => {
            let why = format!("must be base64 in the standard alphabet with padding: {error}");
            Err(invalid("sandbox.stdin.base64", &why))
        }
    }
}
