//! What to do about a folder that can't be written; and what `--check` looks at beyond the configuration's text: whether
//! the agent, started by the same user in the same way, could write where it has to, and whether `docker_host` can be a
//! socket. Changes nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, User};
use rustix::fs::{Access, access};

use super::docker_host;
use crate::{
    base::users,
    config::{Config, Fault, Faults},
};

/// What to do where the data folder can't be made or written.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "make it and give it to the agent's user (chown), or set `data_dir` and `audit_db_path` to a folder of that user's"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount its file system for writing, or set `data_dir` and `audit_db_path` to a folder on another one"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the place of a folder: move it away, or set `data_dir` and `audit_db_path` to another folder"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space there",
        _ => {
            "see that it is a folder that the agent's user may write, or set `data_dir` and `audit_db_path` to one"
        }
    }
}

/// Who will write.
enum Writer {
    /// The user who asks: it is what the agent would be.
    Myself(String),
    /// Root asks: the agent would become this user, after it has handed over the data folder.
    Other { name: String, uid: u32, groups: Vec<u32> },
}

/// What is wrong with the data folder, the database's, and Docker's socket.
///
/// # Errors
/// All faults at once.
pub(super) fn check(file: &Path, config: &Config) -> Result<(), Faults> {
    let writer = Writer::of(config);
    let data = &config.data_dir;
    let record = config.audit_db_path.parent().unwrap_or(Path::new("/"));
    let fault = |key: &str, what| Fault { file: file.to_owned(), line: None, key: key.to_owned(), what };
    let apart = record != data;
    let key = if apart { "data_dir" } else { "audit_db_path" };
    let mut faults: Vec<Fault> = writer.data(data).map(|what| fault(key, what)).into_iter().collect();
    if apart {
        let handed_over = matches!(writer, Writer::Other { .. }) && record.starts_with(data);
        faults.extend(writer.record(record, handed_over).map(|what| fault("audit_db_path", what)));
    }
    faults.extend(docker_host::fault(config).map(|what| fault("docker_host", what)));
    Faults::of(file, faults).map_or(Ok(()), Err)
}

impl Writer {
    fn of(config: &Config) -> Writer {
        let root = rustix::process::geteuid().is_root();
        // An unknown user: the agent goes on as root. What else can be wrong here, its start says.
        let user = User::from_name(&config.run_as.user).ok().flatten().filter(|user| !user.uid.is_root());
        if let (true, Some(user)) = (root, user) {
            let group =
                Group::from_name(&config.run_as.group).ok().flatten().map_or(user.gid, |group| group.gid);
            let groups = users::groups(&user, group).unwrap_or_else(|_| vec![group]);
            let groups = groups.into_iter().map(Gid::as_raw).collect();
            return Writer::Other { name: user.name, uid: user.uid.as_raw(), groups };
        }
        Writer::Myself(users::own_name())
    }

    fn name(&self) -> &str {
        match self {
            Writer::Myself(name) | Writer::Other { name, .. } => name,
        }
    }

    /// The folder that the agent makes where it is missing, and hands over where it is root.
    fn data(&self, folder: &Path) -> Option<String> {
        let there = nearest(folder);
        if !there.is_dir() {
            return Some(format!("{} is no folder", there.display()));
        }
        match self {
            Writer::Other { .. } => self.way(folder),
            Writer::Myself(_) if self.may_write(&there) => None,
            Writer::Myself(name) if there == folder => {
                Some(format!("{} can't be written by the user {name}: chown it", folder.display()))
            }
            Writer::Myself(name) => Some(format!(
                "{} does not exist, and the user {name} can't make it: make it, and give it to that user",
                folder.display()
            )),
        }
    }

    /// The database's folder where it is another: the agent does not make it.
    fn record(&self, folder: &Path, handed_over: bool) -> Option<String> {
        if !folder.is_dir() {
            return Some(format!("the folder {} does not exist: make it", folder.display()));
        }
        let way = match self {
            Writer::Other { .. } => self.way(folder),
            Writer::Myself(_) => None,
        };
        way.or_else(|| {
            (!handed_over && !self.may_write(folder)).then(|| {
                format!("{} can't be written by the user {}: chown it", folder.display(), self.name())
            })
        })
    }

    /// The first folder above that the user may not go through.
    fn way(&self, folder: &Path) -> Option<String> {
        let above: Vec<&Path> = folder.ancestors().skip(1).filter(|above| above.is_dir()).collect();
        let closed = above.into_iter().rev().find(|above| !self.may(above, 0o1))?;
        Some(format!(
            "{} can't be reached by the user {}: {} is closed to it",
            folder.display(),
            self.name(),
            closed.display()
        ))
    }

    fn may_write(&self, folder: &Path) -> bool {
        match self {
            // The system's own answer: it knows of a read-only file system, too.
            Writer::Myself(_) => access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
            Writer::Other { .. } => self.may(folder, 0o3),
        }
    }

    /// Whether the folder's mode has these bits for the user (1: go through, 2: write).
    fn may(&self, folder: &Path, bits: u32) -> bool {
        let Writer::Other { uid, groups, .. } = self else { return true };
        // What can't be looked at is not said to be wrong.
        let Ok(meta) = fs::metadata(folder) else { return true };
        let mode = match () {
            () if meta.uid() == *uid => meta.mode() >> 6,
            () if groups.contains(&meta.gid()) => meta.mode() >> 3,
            () => meta.mode(),
        };
        mode & bits == bits
    }
}

/// The path itself, or what of it is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn nobody() -> Writer {
        Writer::Other { name: "svc".to_owned(), uid: 54_321, groups: vec![54_322] }
    }

    fn folder(mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("its mode");
        dir
    }

    #[test]
    fn each_trouble_of_the_data_folder_has_its_remedy() {
        let remedies = [
            (io::ErrorKind::PermissionDenied, "chown"),
            (io::ErrorKind::ReadOnlyFilesystem, "mount its file system for writing"),
            (io::ErrorKind::AlreadyExists, "a file is in the place of a folder"),
            (io::ErrorKind::StorageFull, "free some space"),
            (io::ErrorKind::Other, "may write"),
        ];
        for (kind, said) in remedies {
            let error = super::super::AgentError::folder("could not make the data folder /d")(kind.into());
            assert_eq!(error.exit_code(), super::super::exits::SYSTEM);
            let text = error.to_string();
            assert!(text.starts_with("could not make the data folder /d: ") && text.contains(said), "{text}");
        }
        // The database's own folder is the record's to speak of.
        let said = |detail: &str| {
            let (file, detail) = ("/d/audit.db".to_owned(), detail.to_owned());
            crate::store::StoreError::NotWritable { file, detail }.to_string()
        };
        assert!(said("Read-only file system (os error 30)").contains("mount its file system for writing"));
        assert!(said("Permission denied (os error 13)").contains("give it and its folder to the user"));
        assert!(said("No such file or directory (os error 2)").contains("create its folder"));
    }

    #[test]
    fn what_root_hands_over_must_be_in_reach() {
        let open = folder(0o755);
        if nobody().way(open.path()).is_some() {
            return; // These tests run in a temporary folder of their user's own.
        }
        assert_eq!(nobody().data(&open.path().join("new/data")), None, "it makes the folder");
        let closed = folder(0o700);
        let said = nobody().data(&closed.path().join("data")).expect("out of reach");
        assert!(
            said.contains("the user svc")
                && said.ends_with(&format!("{} is closed to it", closed.path().display()))
        );
    }

    #[test]
    fn the_databases_own_folder_must_be_there_and_writable() {
        let dir = folder(0o755);
        if nobody().way(dir.path()).is_some() {
            return; // As above.
        }
        let said = nobody().record(&dir.path().join("none"), false).expect("missing");
        assert!(said.contains("does not exist: make it"), "{said}");
        let said = nobody().record(dir.path(), false).expect("read-only for others");
        assert!(said.contains("can't be written by the user svc"), "{said}");
        assert_eq!(nobody().record(dir.path(), true), None, "it lies in the data folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
        assert_eq!(nobody().record(dir.path(), false), None);
    }

    #[test]
    fn a_file_is_no_folder_and_a_link_to_a_folder_is_one() {
        let dir = folder(0o755);
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").expect("a file");
        symlink(dir.path(), &link).expect("a link");
        let me = Writer::Myself("me".to_owned());
        assert_eq!(me.data(&file), Some(format!("{} is no folder", file.display())));
        assert_eq!(me.data(&file.join("x")), Some(format!("{} is no folder", file.display())));
        assert_eq!(me.data(&link.join("data")), None);
    }
}
