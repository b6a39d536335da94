//! Loading real files with real permissions.

mod accept;
mod documents;
mod faults;
mod files;
mod limits;
mod policy;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Config, Faults};

/// What an unmodified installation of the first QuickCMD has.
pub(super) const SEED: &str = include_str!("../../../tests/data/seed-agent-config.yaml");

/// Texts that pass for secrets.
pub(super) const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
pub(super) const SECRET_2: &str = "11112d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A folder with files of given permissions.
pub(super) struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that its owner alone may read.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        // One that its owner may only read can't be written again.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).expect("a file");
        self.mode(name, 0o600);
        path
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("permissions");
    }

    /// A certificate and its key, `NAME-cert.pem` and `NAME-key.pem`.
    pub fn pair(&self, name: &str) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        self.put(&format!("{name}-cert.pem"), pair.cert.pem());
        self.put(&format!("{name}-key.pem"), pair.signing_key.serialize_pem());
    }

    /// Loads `text` as `agent.yaml` of this folder.
    pub fn load(&self, text: &str) -> Result<Config, Faults> {
        self.load_with(text, &|_| None)
    }

    pub fn load_with(&self, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        Config::load(&self.put("agent.yaml", text), env)
    }

    /// The faults of `text`, with this folder shown as `[dir]`.
    pub fn faults(&self, text: &str) -> String {
        match self.load(text) {
            Ok(_) => "(none)".to_owned(),
            Err(faults) => self.shown(&faults),
        }
    }

    pub fn shown(&self, faults: &Faults) -> String {
        faults.to_string().replace(&self.0.path().display().to_string(), "[dir]")
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }
}

/// Loads a text that has no fault.
pub(super) fn loaded(text: &str) -> Config {
    let place = Place::new();
    match place.load(text) {
        Ok(config) => config,
        Err(faults) => panic!("{faults}"),
    }
}
