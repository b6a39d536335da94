//! What is the agent's own below its data folder, given to the user it becomes. As root this touches files that an
//! ordinary user may have put there, so it goes by descriptors: no link is followed and nothing is changed that was
//! looked at under the same name only.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};

/// What the agent makes in its data folder, beside the database: output, sandboxes' folders, the operator's socket.
const NAMES: [&str; 3] = ["spool", "sandboxes", "control"];
/// What stands behind a database's name for it and its helpers.
const DATABASE: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];
/// What a restore keeps.
const BEFORE_RESTORE: &str = ".before-restore-";
/// Folders within each other below `spool` and `sandboxes`, with some to spare.
const DEPTH: u32 = 4;

/// Where the agent's files are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Belongings<'a> {
    pub data_dir: &'a Path,
    /// Commonly in the data folder; it need not be.
    pub database: &'a Path,
}

/// To whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heir {
    pub uid: Uid,
    pub gid: Gid,
}

/// A file or folder, and what the system said.
pub(super) type Failure = (PathBuf, io::Error);

impl<'a> Belongings<'a> {
    fn folder_of_database(&self) -> &'a Path {
        self.database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// What the agent can't work without.
    pub(super) fn needed(&self) -> [PathBuf; 3] {
        [self.database.to_owned(), self.data_dir.join("spool"), self.data_dir.join("sandboxes")]
    }

    /// The folders that these lie in.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.data_dir.to_owned()];
        if self.folder_of_database() != self.data_dir {
            folders.push(self.folder_of_database().to_owned());
        }
        folders
    }

    fn is_own(&self, folder: &Path, name: &[u8]) -> bool {
        let in_data = folder == self.data_dir && NAMES.iter().any(|own| own.as_bytes() == name);
        let database = self.database.file_name().map_or(&[][..], OsStr::as_bytes);
        let of_database = folder == self.folder_of_database()
            && !database.is_empty()
            && name.strip_prefix(database).is_some_and(|rest| {
                DATABASE.iter().any(|suffix| suffix.as_bytes() == rest)
                    || rest.starts_with(BEFORE_RESTORE.as_bytes())
            });
        in_data || of_database
    }

    /// Gives what is the agent's own, by name, and each folder that holds nothing else. A folder with somebody else's
    /// files in it, `/var/log` for example, stays whose it is, and so do they.
    pub(super) fn hand_over(&self, heir: Heir) -> Result<(), Failure> {
        for folder in self.folders() {
            let named = |error: io::Error| (folder.clone(), error);
            let opened =
                openat(CWD, &folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| named(error.into()))?;
            let names = list(opened.as_fd()).map_err(named)?;
            let (own, foreign): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| self.is_own(&folder, name.to_bytes()));
            for name in own {
                give(opened.as_fd(), &name, heir, DEPTH)
                    .map_err(|error| (folder.join(OsStr::from_bytes(name.to_bytes())), error))?;
            }
            if foreign.is_empty() {
                chown(opened.as_fd(), heir).map_err(named)?;
            }
        }
        Ok(())
    }
}

/// All names in a folder.
fn list(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Gives one entry, and all below it.
fn give(folder: BorrowedFd<'_>, name: &CStr, heir: Heir, depth: u32) -> io::Result<()> {
    let entry: OwnedFd =
        match openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            // It was there a moment ago; a helper of the database, perhaps.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other?,
        };
    let meta = fstat(&entry)?;
    match FileType::from_raw_mode(meta.st_mode) {
        FileType::Directory => {
            if depth > 0 {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inside = openat(&entry, c".", flags, Mode::empty())?;
                for name in list(inside.as_fd())? {
                    give(inside.as_fd(), &name, heir, depth - 1)?;
                }
            }
            chown(entry.as_fd(), heir)
        }
        // Its other name may be anywhere, `/etc/shadow` for example.
        FileType::RegularFile if meta.st_nlink > 1 => Ok(()),
        _ => chown(entry.as_fd(), heir),
    }
}

fn chown(entry: BorrowedFd<'_>, heir: Heir) -> io::Result<()> {
    let meta = fstat(entry)?;
    if (meta.st_uid, meta.st_gid) == (heir.uid.as_raw(), heir.gid.as_raw()) {
        return Ok(());
    }
    Ok(chownat(entry, c"", Some(heir.uid), Some(heir.gid), AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    const NOBODY: u32 = 65_534;

    fn heir() -> Heir {
        Heir { uid: Uid::from_raw(NOBODY), gid: Gid::from_raw(NOBODY) }
    }

    /// Below this folder: what belongs to the heir, in order.
    fn given(folder: &Path) -> Vec<String> {
        let mut given = Vec::new();
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.uid() == NOBODY && meta.gid() == NOBODY {
                given.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
            if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        given.sort();
        given
    }

    fn is_root() -> bool {
        nix::unistd::Uid::effective().is_root()
    }

    fn make(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn names_are_own_where_they_belong_only() {
        let belongings = Belongings { data_dir: Path::new("/d"), database: Path::new("/e/audit.db") };
        let own = |folder: &str, name: &str| belongings.is_own(Path::new(folder), name.as_bytes());
        assert!(own("/d", "spool") && own("/d", "sandboxes") && own("/d", "control"));
        assert!(own("/e", "audit.db") && own("/e", "audit.db-wal") && own("/e", "audit.db.lock"));
        assert!(own("/e", "audit.db.before-restore-17-wal"));
        for (folder, name) in
            [("/e", "spool"), ("/d", "audit.db"), ("/e", "audit.db2"), ("/e", "syslog"), ("/d", "")]
        {
            assert!(!own(folder, name), "{folder} {name}");
        }
        assert_eq!(belongings.folders(), [Path::new("/d"), Path::new("/e")]);
    }

    #[test]
    fn a_folder_of_its_own_is_given_whole() {
        if !is_root() {
            return; // Nobody else can give anything.
        }
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["db", "db-wal", "db.lock", "spool/1/out", "sandboxes/.init-1", "control"]);
        let database = folder.path().join("db");
        Belongings { data_dir: folder.path(), database: &database }.hand_over(heir()).unwrap();
        let all =
            ["", "control", "db", "db-wal", "db.lock", "sandboxes", "sandboxes/.init-1", "spool", "spool/1"];
        assert_eq!(given(folder.path()), [&all[..], &["spool/1/out"]].concat());
    }

    #[test]
    fn what_is_somebody_elses_stays_theirs() {
        if !is_root() {
            return; // As above.
        }
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let elsewhere = folder.path().join("elsewhere");
        make(
            &log,
            &["syslog", "nginx/access.log", "quickcmd.db", "quickcmd.db-shm", "spool/x", "sandboxes/x"],
        );
        make(&elsewhere, &["shadow", "passwd"]);
        // What a user who had the folder before may have left for root to trip over.
        symlink(elsewhere.join("shadow"), log.join("spool/link")).unwrap();
        symlink(&elsewhere, log.join("spool/folder")).unwrap();
        symlink(elsewhere.join("passwd"), log.join("control")).unwrap();
        fs::hard_link(elsewhere.join("shadow"), log.join("sandboxes/hard")).unwrap();
        Belongings { data_dir: &log, database: &log.join("quickcmd.db") }.hand_over(heir()).unwrap();
        assert_eq!(
            given(folder.path()),
            [
                "log/control",
                "log/quickcmd.db",
                "log/quickcmd.db-shm",
                "log/sandboxes",
                "log/sandboxes/x",
                "log/spool",
                "log/spool/folder",
                "log/spool/link",
                "log/spool/x"
            ]
        );
    }

    #[test]
    fn a_database_elsewhere_is_given_too() {
        if !is_root() {
            return; // As above.
        }
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["data/spool/x", "log/a.db", "log/a.db-wal", "log/syslog"]);
        let (data_dir, database) = (folder.path().join("data"), folder.path().join("log/a.db"));
        Belongings { data_dir: &data_dir, database: &database }.hand_over(heir()).unwrap();
        assert_eq!(given(folder.path()), ["data", "data/spool", "data/spool/x", "log/a.db", "log/a.db-wal"]);
    }
}
