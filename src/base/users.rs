//! Users of this host.

use std::{ffi::CString, fs, os::unix::fs::MetadataExt, path::Path};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, User, geteuid, getgrouplist},
};

/// The user that this process is, by its number where it has no name.
pub fn own_name() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    user.map_or_else(|| format!("uid {}", geteuid()), |user| user.name)
}

/// The group of a file, by its name.
pub fn group_of(path: &Path) -> Option<String> {
    let gid = fs::metadata(path).ok()?.gid();
    Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name)
}

/// All groups of a user: `primary`, and those that the host's list of groups names (getgrouplist(3)).
///
/// # Errors
/// The list can't be read, or the name is none.
pub fn groups(user: &User, primary: Gid) -> Result<Vec<Gid>, Errno> {
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    getgrouplist(&name, primary)
}
