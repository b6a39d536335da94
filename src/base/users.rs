//! Users of this host.

use std::ffi::CString;

use nix::{
    errno::Errno,
    unistd::{Gid, User, getgrouplist},
};

/// All groups of a user: `primary`, and those that the host's list of groups names (getgrouplist(3)).
///
/// # Errors
/// The list can't be read, or the name is none.
pub fn groups(user: &User, primary: Gid) -> Result<Vec<Gid>, Errno> {
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    getgrouplist(&name, primary)
}
