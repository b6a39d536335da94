//! Files that a job brings, and files that it leaves: shape and rules.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rules::FORBIDDEN_FOLDERS;
use crate::wire::{
    Problem,
    fields::{Fields, invalid},
};

/// Items of `files`, and of `artifacts`.
pub const MAX_ITEMS: usize = 64;
/// Bytes of a path.
pub const MAX_PATH: usize = 512;
/// What a file may be for its owner, its group and all others, where nothing is said.
pub const DEFAULT_MODE: u32 = 0o644;

const FILE: &[&str] = &["path", "content", "encoding", "mode"];

/// One file to place before the start.
#[derive(Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRequest {
    /// Absolute, or from the folder that the job starts in.
    #[schemars(length(min = 1, max = MAX_PATH))]
    pub path: String,
    pub content: String,
    /// How `content` says its bytes; UTF-8 if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub encoding: Option<Encoding>,
    /// Permission bits in octal digits, as `chmod` takes them.
    #[schemars(regex(pattern = "^0?[0-7]{3}$"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
}

/// How a text says bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    /// Standard alphabet with padding (RFC 4648, section 4).
    #[serde(rename = "base64")]
    Base64,
}

impl FileRequest {
    /// Its bytes; none if the base64 is invalid, which parsing refuses.
    pub fn bytes(&self) -> Vec<u8> {
        match self.encoding {
            Some(Encoding::Base64) => STANDARD.decode(&self.content).unwrap_or_default(),
            Some(Encoding::Utf8) | None => self.content.clone().into_bytes(),
        }
    }

    /// Its permission bits.
    pub fn mode_bits(&self) -> u32 {
        self.mode.as_deref().and_then(mode).unwrap_or(DEFAULT_MODE)
    }
}

impl std::fmt::Debug for FileRequest {
    /// Without the content, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRequest")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Permission bits: three octal digits, a zero before them or not. No set-uid, set-gid or sticky bit.
fn mode(text: &str) -> Option<u32> {
    let digits = if text.len() == 4 { text.strip_prefix('0')? } else { text };
    if digits.len() != 3 || !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok()
}

/// What is wrong with a path, if anything is.
fn fault(path: &str) -> Option<String> {
    if path.is_empty() || path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return Some(format!("must be a path of 1 to {MAX_PATH} bytes, without control characters"));
    }
    let below = path.strip_prefix('/').unwrap_or(path);
    if below.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("must have no `.`, no `..`, no `//` and no `/` at its end".to_owned());
    }
    let inside =
        |root: &&&str| path.strip_prefix(**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    FORBIDDEN_FOLDERS.iter().find(inside).map(|root| format!("must not lie in {root}"))
}

/// The items of a list, 64 at most.
fn items(fields: &mut Fields<'_>, name: &str) -> Result<Option<Vec<Value>>, Problem> {
    match fields.take(name) {
        None => Ok(None),
        Some(Value::Array(items)) if items.len() <= MAX_ITEMS => Ok(Some(items)),
        Some(_) => Err(fields.invalid(name, &format!("must be a list of {MAX_ITEMS} items at most"))),
    }
}

pub(super) fn files(fields: &mut Fields<'_>) -> Result<Option<Vec<FileRequest>>, Problem> {
    let Some(items) = items(fields, "files")? else { return Ok(None) };
    let mut files: Vec<FileRequest> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Value::Object(map) = item else {
            return Err(fields.invalid(&format!("files.{index}"), "must be an object"));
        };
        let prefix = format!("{}.{index}.", fields.path("files"));
        let file = file(&mut Fields::new(&prefix, map, FILE)?)?;
        if files.iter().any(|other| other.path == file.path) {
            return Err(invalid(&format!("{prefix}path"), "stands there twice"));
        }
        files.push(file);
    }
    Ok(Some(files))
}

fn file(fields: &mut Fields<'_>) -> Result<FileRequest, Problem> {
    let path = fields.required_text("path")?;
    if let Some(fault) = fault(&path) {
        return Err(fields.invalid("path", &fault));
    }
    let content = fields.required_text("content")?;
    let encoding = match fields.text("encoding")?.as_deref() {
        None => None,
        Some("utf-8") => Some(Encoding::Utf8),
        Some("base64") => Some(Encoding::Base64),
        Some(_) => return Err(fields.invalid("encoding", "must be `utf-8` or `base64`")),
    };
    if encoding == Some(Encoding::Base64)
        && let Err(error) = STANDARD.decode(&content)
    {
        let why = format!("must be base64 in the standard alphabet with padding: {error}");
        return Err(fields.invalid("content", &why));
    }
    let bits = fields.text("mode")?;
    if bits.as_deref().is_some_and(|bits| mode(bits).is_none()) {
        return Err(fields.invalid("mode", "must be three octal digits, such as \"644\" or \"0755\""));
    }
    Ok(FileRequest { path, content, encoding, mode: bits })
}

pub(super) fn artifacts(fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, Problem> {
    let Some(items) = items(fields, "artifacts")? else { return Ok(None) };
    let mut paths: Vec<String> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let name = format!("artifacts.{index}");
        let Value::String(path) = item else { return Err(fields.invalid(&name, "must be a text")) };
        if let Some(fault) = fault(&path) {
            return Err(fields.invalid(&name, &fault));
        }
        // In an archive, and in the address of a download, the first slash does not count.
        let short = |path: &str| path.trim_start_matches('/').to_owned() + "/";
        let (this, mut others) = (short(&path), paths.iter().map(|other| short(other)));
        if let Some(other) = others.position(|other| this.starts_with(&other) || other.starts_with(&this)) {
            return Err(fields.invalid(&name, &format!("is, holds, or lies in artifacts.{other}")));
        }
        paths.push(path);
    }
    Ok(Some(paths))
}
