//! From root to an ordinary user: the agent listens on the network, so it must not be root while it
//! does. Done once, before the first thread is started.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgid, setgroups, setuid};

use crate::config::RunAs;

/// What became of the wish to be an ordinary user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// It was one already: there is nothing to give up.
    AlreadyOrdinary,
    /// It is now this user, in these groups.
    User { name: String, groups: Vec<u32> },
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

/// Hands the data folder to the configured user and becomes that user, keeping the group that owns Docker's
/// socket. Does nothing where the process is not root.
///
/// # Errors
/// [`PrivilegeError`]; the process may then have given up part of its rights and must end.
pub fn become_ordinary(
    run_as: &RunAs,
    data_dir: &Path,
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

    hand_over(data_dir, user.uid, group.gid).map_err(|(path, error)| PrivilegeError::HandOver {
        path,
        user: name.clone(),
        error,
    })?;

    let c_name =
        std::ffi::CString::new(name.clone()).map_err(|_| call("getgrouplist", nix::Error::EINVAL))?;
    let mut groups = getgrouplist(&c_name, group.gid).map_err(|error| call("getgrouplist", error))?;
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
    Ok(Became::User { name, groups: groups.iter().map(|gid| gid.as_raw()).collect() })
}

/// Gives the folder and all in it to the user. Links are given themselves, never followed.
fn hand_over(path: &Path, uid: Uid, gid: Gid) -> Result<(), (String, std::io::Error)> {
    let named = |error| (path.display().to_string(), error);
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(named)?;
            fs::symlink_metadata(path).map_err(named)?
        }
        Err(error) => return Err(named(error)),
    };
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(named)? {
            hand_over(&entry.map_err(named)?.path(), uid, gid)?;
        }
    }
    if meta.uid() == uid.as_raw() && meta.gid() == gid.as_raw() {
        return Ok(());
    }
    if meta.is_symlink() {
        return std::os::unix::fs::lchown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(named);
    }
    chown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(named)
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
        let became = become_ordinary(&run_as, dir.path(), None).expect("it goes on");
        assert_eq!(became, Became::NoSuchUser { name: "no-such-user-here".to_owned() });
    }
}
