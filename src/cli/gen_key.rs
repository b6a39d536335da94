//! `quickcmd gen-key`: a secret for an agent and its controller.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{args::Global, exits, fault::Fault, out};
use crate::{base::ids::random_hex, wire::key::SigningKey};

/// Options of `gen-key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without options it prints a secret for `hmac_secret` of the agent; the controller gets the same.
With --ed25519 the secret stays with the controller and the agent gets the public key.")]
pub struct GenKeyArgs {
    /// An Ed25519 key pair instead of a shared secret
    #[arg(long)]
    pub ed25519: bool,
    /// Write the secret to this new file, for our eyes only, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub fn run(global: &Global, args: &GenKeyArgs) -> Result<u8, Fault> {
    let seed = random_hex(32);
    let (secret, public) = if args.ed25519 {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&seed, &mut bytes)
            .map_err(|error| Fault::new(exits::SOFTWARE, format!("no random bytes: {error}")))?;
        (format!("ed25519:{seed}"), SigningKey::ed25519(&bytes).public().map(hex::encode))
    } else {
        (seed, None)
    };
    if let Some(path) = &args.out {
        write(path, &secret)?;
    }
    let file = args.out.as_ref().map(|path| path.display().to_string());
    if global.json {
        let mut object = json!({ "algorithm": if args.ed25519 { "Ed25519" } else { "HMAC-SHA256" } });
        match &file {
            Some(file) => object["file"] = json!(file),
            None => object["secret"] = json!(secret),
        }
        if let Some(public) = &public {
            object["public_key"] = json!(public);
        }
        out::print_json(&object)?;
        return Ok(0);
    }
    match (&file, &public) {
        (None, None) => out::print(&format!("{secret}\n"))?,
        (Some(_), Some(public)) => out::print(&format!("{public}\n"))?,
        (None, Some(public)) => out::print(&format!("secret: {secret}\npublic: {public}\n"))?,
        (Some(_), None) => {}
    }
    if let Some(file) = &file {
        out::note(&format!("the secret is in {file}"));
    }
    Ok(0)
}

fn write(path: &Path, secret: &str) -> Result<(), Fault> {
    let fault = |error: io::Error| {
        let fault = Fault::new(exits::CANT_CREATE, format!("cannot make {}: {error}", path.display()));
        match (error.kind(), path.parent()) {
            (io::ErrorKind::AlreadyExists, _) => fault.hint("an existing file is never overwritten"),
            (io::ErrorKind::NotFound, Some(folder)) => {
                fault.hint(format!("make its folder first: mkdir -p {}", folder.display()))
            }
            _ => fault,
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(format!("{secret}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(fault)
}
