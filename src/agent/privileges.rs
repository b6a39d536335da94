//! From root to an ordinary user: the agent listens on the network, so it must not be root while it
//! does. Done once, before the first thread is started.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, Gid, Group, Uid, User, access, setgid, setgroups, setuid};

use super::handover::{Belongings, Heir};
use crate::{base::users, config::RunAs};

/// What became of the wish to be an ordinary user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// It was one already: there is nothing to give up.
    AlreadyOrdinary,
    /// It is now this user, in these groups. `left`: folders that hold what is not the agent's, so that they were not
    /// handed over, and that the user can't write to.
    User { name: String, groups: Vec<u32>, left: Vec<PathBuf> },
    /// There is no such user: it goes on as root, and the log says what to do.
    NoSuchUser { name: String },
}

/// Why the agent could not become that user.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The group is configured, but does not exist.
    #[error(
        "run_as_group {0:?} does not exist: create it (scripts/setup-agent.sh does) or leave run_as_group out"
    )]
    NoSuchGroup(String),
    /// The folder could not be handed over.
    #[error("could not hand {path} to {user}: {error}")]
    HandOver {
        /// The file or folder.
        path: String,
        /// To whom.
        user: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It was handed over, and is still out of reach: a folder above it is closed.
    #[error(
        "{user} can't use {path} ({error}): a folder above it is closed to that user, and one that also holds \
         other files was not handed over: give it to {user}, or set data_dir and audit_db_path to a folder of the \
         agent's own"
    )]
    OutOfReach {
        /// The file or folder.
        path: String,
        /// Whose it is.
        user: String,
        /// What the system said.
        error: nix::Error,
    },
    /// A system call failed.
    #[error("could not become {user}: {call}: {error}")]
    Call {
        /// Whom.
        user: String,
        /// Which call.
        call: &'static str,
        /// What the system said.
        error: nix::Error,
    },
}

/// Hands what is the agent's to the configured user and becomes that user, keeping the group that owns Docker's
/// socket. Does nothing where the process is not root.
///
/// # Errors
/// [`PrivilegeError`]; the process may then have given up part of its rights and must end.
pub(super) fn become_ordinary(
    run_as: &RunAs,
    belongings: Belongings<'_>,
    docker_socket: Option<&Path>,
) -> Result<Became, PrivilegeError> {
    if !Uid::effective().is_root() {
        return Ok(Became::AlreadyOrdinary);
    }
    let name = run_as.user.clone();
    let call = |call, error| PrivilegeError::Call { user: name.clone(), call, error };
    let Some(user) = User::from_name(&name).map_err(|error| call("getpwnam", error))? else {
        return Ok(Became::NoSuchUser { name });
    };
    if user.uid.is_root() {
        return Ok(Became::AlreadyOrdinary);
    }
    let group = Group::from_name(&run_as.group)
        .map_err(|error| call("getgrnam", error))?
        .ok_or_else(|| PrivilegeError::NoSuchGroup(run_as.group.clone()))?;

    let heir = Heir {
        uid: rustix::fs::Uid::from_raw(user.uid.as_raw()),
        gid: rustix::fs::Gid::from_raw(group.gid.as_raw()),
    };
    belongings.hand_over(heir).map_err(|(path, error)| PrivilegeError::HandOver {
        path: path.display().to_string(),
        user: name.clone(),
        error,
    })?;

    let mut groups = users::groups(&user, group.gid).map_err(|error| call("getgrouplist", error))?;
    // Docker's group, whatever it is called: without it there are no sandboxes.
    if let Some(gid) =
        docker_socket.and_then(|path| fs::metadata(path).ok()).map(|meta| Gid::from_raw(meta.gid()))
        && gid.as_raw() != 0
        && !groups.contains(&gid)
    {
        groups.push(gid);
    }
    setgroups(&groups).map_err(|error| call("setgroups", error))?;
    setgid(group.gid).map_err(|error| call("setgid", error))?;
    setuid(user.uid).map_err(|error| call("setuid", error))?;
    // Asked as that user: better no start than one in which every job fails.
    for path in belongings.needed() {
        access(&path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|error| PrivilegeError::OutOfReach {
            path: path.display().to_string(),
            user: name.clone(),
            error,
        })?;
    }
    let closed = |folder: &PathBuf| access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err();
    let left = belongings.folders().into_iter().filter(closed).collect();
    Ok(Became::User { name, groups: groups.iter().map(|gid| gid.as_raw()).collect(), left })
}

/// What is odd about a user that does not exist.
pub(super) fn missing_user(run_as: &RunAs) -> Option<String> {
    let user = &run_as.user;
    matches!(User::from_name(user), Ok(None)).then(|| {
        format!(
            "there is no user {user:?} (run_as_user): started as root, the agent would go on as root; \
             scripts/setup-agent.sh makes the user"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_told_not_guessed() {
        if !Uid::effective().is_root() {
            return; // An ordinary user has nothing to give up: the first line of the function.
        }
        let dir = tempfile::tempdir().expect("a folder");
        let run_as = RunAs { user: "no-such-user-here".to_owned(), group: "no-such-group".to_owned() };
        let belongings = Belongings { data_dir: dir.path(), database: &dir.path().join("db") };
        let became = become_ordinary(&run_as, belongings, None).expect("it goes on");
        assert_eq!(became, Became::NoSuchUser { name: "no-such-user-here".to_owned() });
    }
}
