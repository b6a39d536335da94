//! A job's options, and the payload that they make.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, ValueEnum};

use super::{exits, fault::Fault, units};
use crate::{
    base::{clock::Timestamp, ids::random_hex},
    wire::{
        Payload, SandboxRequest,
        payload::{Encoding, FileRequest, Network, Stdin},
    },
};

/// A file or a standard input with more bytes than this can't fit into any body that an agent takes.
const MOST: u64 = 64 << 20;

/// What to run, and in what kind of sandbox; what is left out is the agent's default.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The command: one word is run by `/bin/sh -c`, several are run as they stand, without a shell
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Image to run in
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Cores, such as 0.5
    #[arg(long, value_name = "CORES", value_parser = units::cores)]
    pub cpu: Option<f64>,
    /// Memory, such as 256m
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub memory: Option<u64>,
    /// Processes and threads
    #[arg(long, value_name = "COUNT")]
    pub pids: Option<u64>,
    /// Time that the command may take, such as 5m
    #[arg(long, value_name = "TIME", value_parser = units::seconds)]
    pub timeout: Option<u64>,
    /// Size of /tmp and of the work folder each, such as 64m
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub tmpfs: Option<u64>,
    /// What of the network it sees
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<NetworkArg>,
    /// Set a variable of its environment; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The same for a secret, masked in every output; NAME alone takes the value from here, unseen by `ps`
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub secret_env: Vec<String>,
    /// Folder to start in
    #[arg(long, value_name = "FOLDER")]
    pub workdir: Option<String>,
    /// File to give as standard input; - for our own
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<PathBuf>,
    /// Place a local file before the start, REMOTE absolute or from the folder to start in; repeatable
    #[arg(long = "file", value_name = "LOCAL[:REMOTE]")]
    pub files: Vec<String>,
    /// Keep this file, or all files below this folder, after the end; repeatable
    #[arg(long = "artifact", value_name = "PATH")]
    pub artifacts: Vec<String>,
    /// A scope that the job requires; repeatable
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// What it is for, for the record
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Its id, used once for ever [default: a fresh one]
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// The only agent that may run it
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Time by which it must have started, from now
    #[arg(long, value_name = "TIME", value_parser = units::seconds, default_value = "5m")]
    pub ttl: u64,
}

/// `--network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    None,
    Bridge,
}

impl JobArgs {
    /// Where the job's files are to be fetched to, if anywhere: then it must keep some.
    ///
    /// # Errors
    /// Nothing would ever land there.
    pub fn fetched_to<'a>(&self, folder: Option<&'a Path>) -> Result<Option<&'a Path>, Fault> {
        if folder.is_some() && self.artifacts.is_empty() {
            return Err(Fault::new(
                exits::USAGE,
                "--artifacts-to has nothing to fetch: no --artifact says what the agent is to keep",
            )
            .hint("name a file or a folder of the job: --artifact PATH"));
        }
        Ok(folder)
    }

    /// The payload, to be signed at `now`.
    pub fn payload(
        self,
        controller_id: &str,
        agent_id: Option<String>,
        now: Timestamp,
    ) -> Result<Payload, Fault> {
        let stdin = self.stdin.as_deref().map(read_stdin).transpose()?;
        let sandbox = SandboxRequest {
            image: self.image,
            cpu_limit: self.cpu,
            memory_limit: self.memory,
            pids_limit: self.pids,
            timeout_seconds: self.timeout,
            tmpfs_size: self.tmpfs,
            network: self.network.map(|network| match network {
                NetworkArg::None => Network::None,
                NetworkArg::Bridge => Network::Bridge,
            }),
            env: pairs("--env", &self.env, |_| None)?,
            secret_env: pairs("--secret-env", &self.secret_env, |name| env::var(name).ok())?,
            workdir: self.workdir,
            stdin,
            files: (!self.files.is_empty())
                .then(|| self.files.iter().map(|file| read_file(file)).collect())
                .transpose()?,
            artifacts: (!self.artifacts.is_empty()).then_some(self.artifacts),
        };
        let (command, argv) = match <[String; 1]>::try_from(self.command) {
            Ok([command]) => (command, None),
            Err(words) => (String::new(), Some(words)),
        };
        let timestamp = now.secs();
        Ok(Payload {
            job_id: self.job_id.unwrap_or_else(|| format!("job-{}", random_hex(8))),
            prompt: self.prompt.unwrap_or_default(),
            command,
            candidate_metadata: None,
            plugin_metadata: None,
            required_scopes: (!self.scopes.is_empty()).then_some(self.scopes),
            snapshot_metadata: String::new(),
            ttl: timestamp.saturating_add(i64::try_from(self.ttl).unwrap_or(i64::MAX)),
            timestamp,
            controller_id: controller_id.to_owned(),
            agent_id: self.agent_id.or(agent_id),
            argv,
            sandbox: (sandbox != SandboxRequest::default()).then_some(sandbox),
        })
    }
}

fn pairs(
    option: &str,
    given: &[String],
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<Option<BTreeMap<String, String>>, Fault> {
    let mut map = BTreeMap::new();
    for pair in given {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match look_up(pair) {
                Some(value) => (pair.as_str(), value),
                None if option == "--env" => {
                    return Err(Fault::new(exits::USAGE, format!("{option} {pair} has no value"))
                        .hint(format!("{option} NAME=VALUE")));
                }
                None => {
                    return Err(Fault::new(
                        exits::USAGE,
                        format!("{option} {pair}: there is no such variable here"),
                    )
                    .hint(format!("export {pair} first, or give {option} {pair}=VALUE")));
                }
            },
        };
        if map.insert(name.to_owned(), value).is_some() {
            return Err(Fault::new(exits::USAGE, format!("{option} gives {name} twice")));
        }
    }
    Ok((!map.is_empty()).then_some(map))
}

/// `LOCAL:REMOTE`, or `LOCAL` under its own name in the folder to start in.
fn read_file(given: &str) -> Result<FileRequest, Fault> {
    let name = |local: &str| local.rsplit('/').next().unwrap_or_default().to_owned();
    let (local, remote) = match given.rsplit_once(':') {
        Some((local, remote)) if !local.is_empty() && !remote.is_empty() => (local, remote.to_owned()),
        Some(_) => {
            return Err(Fault::new(exits::USAGE, format!("--file {given} has an empty side"))
                .hint("--file LOCAL:REMOTE"));
        }
        None => (given, name(given)),
    };
    let fault = |error: io::Error| Fault::new(exits::NO_INPUT, format!("cannot read {local}: {error}"));
    let file = fs::File::open(local).map_err(fault)?;
    let executable = file.metadata().map_err(fault)?.permissions().mode() & 0o100 != 0;
    let (content, encoding) = match text(read(file, local, fault)?) {
        Ok(text) => (text, None),
        Err(base64) => (base64, Some(Encoding::Base64)),
    };
    Ok(FileRequest { path: remote, content, encoding, mode: executable.then(|| "0755".to_owned()) })
}

fn read_stdin(path: &Path) -> Result<Stdin, Fault> {
    let name = path.display().to_string();
    let fault = |error: io::Error| Fault::new(exits::NO_INPUT, format!("cannot read {name}: {error}"));
    let bytes = if path.as_os_str() == "-" {
        read(io::stdin().lock(), "standard input", fault)?
    } else {
        read(fs::File::open(path).map_err(fault)?, &name, fault)?
    };
    Ok(match text(bytes) {
        Ok(text) => Stdin::Text(text),
        Err(base64) => Stdin::Base64 { base64 },
    })
}

/// As text, or else in base64: what is no UTF-8, and what JSON's escapes would make longer than that (an archive is
/// mostly zeros, of which each takes six bytes there).
fn text(bytes: Vec<u8>) -> Result<String, String> {
    let escapes: usize = bytes
        .iter()
        .map(|byte| match byte {
            b'\n' | b'\r' | b'\t' | b'"' | b'\\' => 1,
            0..0x20 => 5,
            _ => 0,
        })
        .sum();
    if escapes > bytes.len() / 3 + 16 {
        return Err(STANDARD.encode(bytes));
    }
    String::from_utf8(bytes).map_err(|error| STANDARD.encode(error.as_bytes()))
}

/// All of it; a part would be another input than was meant.
fn read(from: impl Read, name: &str, fault: impl Fn(io::Error) -> Fault) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > MOST {
        let cause = format!("{name} has more than {} MiB, and no agent takes so much in a job", MOST >> 20);
        return Err(Fault::new(exits::USAGE, cause)
            .hint("put it into the image, or let the job fetch it where it may use the network"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_the_shorter_way() {
        assert_eq!(text("ä\n\"quoted\"\n".into()), Ok("ä\n\"quoted\"\n".to_owned()));
        assert_eq!(text(b"\0".to_vec()), Ok("\0".to_owned()));
        assert_eq!(text(b"abc\xff".to_vec()), Err("YWJj/w==".to_owned()));
        for bytes in [vec![0; 3000], [vec![b'a'; 512], vec![0; 3584]].concat()] {
            let base64 = text(bytes.clone()).expect_err("escapes are longer");
            assert!(base64.len() < bytes.len() * 3 / 2);
            assert_eq!(STANDARD.decode(base64), Ok(bytes));
        }
    }
}
