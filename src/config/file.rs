//! Files that the configuration names: read whole, with who else may read them.

use std::{fs::File, io::Read, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::{Gid, Group, User, getegid, getgroups};

use super::RunAs;
use crate::base::users;

/// A configuration, a secret or a certificate is never larger than this.
const MOST: u64 = 1 << 20;

/// A file's bytes and its permissions.
pub(super) struct Contents {
    pub bytes: Vec<u8>,
    mode: u32,
    gid: u32,
}

/// Reads a file of at most 1 MiB. The error says what is wrong and what to do, without the path.
pub(super) fn read(path: &Path) -> Result<Contents, String> {
    let wrong = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist: create it or correct the path".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            "may not be read by the agent: give it to the agent's user (chown, chmod 600)".to_owned()
        }
        _ => format!("can't be read: {error}"),
    };
    // A FIFO would block the open for ever.
    let kind = std::fs::metadata(path).map_err(wrong)?;
    if !kind.is_file() {
        return Err("is no ordinary file: name one".to_owned());
    }
    let file = File::open(path).map_err(wrong)?;
    let meta = file.metadata().map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MOST {
        return Err("is larger than 1 MiB: this can't be the right file".to_owned());
    }
    Ok(Contents { bytes, mode: meta.mode(), gid: meta.gid() })
}

impl Contents {
    /// Whether every user of the host may read it.
    pub fn world_readable(&self) -> bool {
        self.mode & 0o004 != 0
    }

    /// Whether users may change it whom it is not meant for.
    pub fn world_writable(&self) -> bool {
        self.mode & 0o002 != 0
    }

    /// The group that may read it, where that is neither root's nor one of the agent's own (those of the user that it
    /// becomes, where it is started by root), by its name.
    pub fn foreign_group(&self, run_as: &RunAs) -> Option<String> {
        if self.mode & 0o040 == 0 || self.gid == 0 || self.gid == getegid().as_raw() {
            return None;
        }
        if getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == self.gid)) {
            return None;
        }
        let name = Group::from_gid(self.gid.into()).ok().flatten().map(|group| group.name);
        if name.as_deref() == Some(run_as.group.as_str()) || groups_of(&run_as.user).contains(&self.gid) {
            return None;
        }
        Some(name.unwrap_or_else(|| self.gid.to_string()))
    }
}

/// The groups of a user, if there is one of that name.
fn groups_of(user: &str) -> Vec<u32> {
    let Ok(Some(user)) = User::from_name(user) else { return Vec::new() };
    let groups = users::groups(&user, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}
