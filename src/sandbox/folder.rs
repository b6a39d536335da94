//! The sandbox's folder on the host: the supervisor's file and the socket it connects to, mounted
//! read-only into the container.
//!
//! The agent may be an ordinary user and the container's user any other, also one shifted by user-namespace
//! remapping: so the folder can be passed through, the file run and the socket connected to by everybody,
//! and what keeps others on the host out is the folder above, mode 0700.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use quickcmd_init::proto;
use sha2::{Digest, Sha256};
use tokio::net::UnixListener;

/// The supervisor, built by `build.rs`.
static SUPERVISOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quickcmd-init"));

/// All sandboxes' folders.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    root: PathBuf,
    /// One copy of the supervisor that the folders link to.
    supervisor: PathBuf,
}

impl Folders {
    /// Makes `data_dir/sandboxes` and writes the supervisor there.
    pub(super) fn open(data_dir: &Path) -> io::Result<Folders> {
        // Docker resolves what it mounts by itself, from another working folder.
        let root = std::path::absolute(data_dir)?.join("sandboxes");
        fs::create_dir_all(&root)?;
        // Here others on the host are kept from the sockets; Docker passes as root.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        let supervisor = root.join(format!(".init-{}", &hex::encode(Sha256::digest(SUPERVISOR))[..16]));
        let folders = Folders { root, supervisor };
        folders.write_supervisor()?;
        Ok(folders)
    }

    /// Writes the one copy, unless it is there, whole, and ours: the kernel lets nobody link to a file of
    /// somebody else (`fs.protected_hardlinks`), and an agent that was started as root has written as root.
    fn write_supervisor(&self) -> io::Result<()> {
        let own = rustix::process::geteuid().as_raw();
        if let Ok(there) = fs::metadata(&self.supervisor)
            && there.uid() == own
            && there.len() == SUPERVISOR.len() as u64
            && there.permissions().mode() & 0o777 == 0o555
        {
            return Ok(());
        }
        let fresh = self.root.join(format!(".init-new-{}", crate::base::ids::random_hex(6)));
        write_program(&fresh)?;
        fs::rename(&fresh, &self.supervisor)
    }

    /// Where the folder of that container is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes sure that there is a folder of that name: Docker asks for it when the container is made. What is
    /// in it stays, it may be a living container's.
    pub(super) fn reserve(&self, name: &str) -> io::Result<()> {
        match fs::create_dir(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a supervisor may have connected from that folder: its socket goes when one has.
    pub(super) fn was_connected(&self, name: &str) -> bool {
        let folder = self.path(name);
        !folder.exists()
            || (folder.join(proto::INIT_FILE).exists() && !folder.join(proto::SOCKET_FILE).exists())
    }

    /// Takes back a reservation: removes the folder if nothing is in it.
    pub(super) fn release(&self, name: &str) {
        let _in_use = fs::remove_dir(self.path(name));
    }

    /// Makes the folder of one container, and listens on its socket. What an earlier try left goes.
    pub(super) fn stage(&self, name: &str) -> io::Result<UnixListener> {
        let path = self.path(name);
        self.clear(name)?;
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        let program = path.join(proto::INIT_FILE);
        // A link costs nothing; where the file system has none, or the one copy is gone, a copy does.
        if fs::hard_link(&self.supervisor, &program).is_err() {
            write_program(&program)?;
        }
        // A socket's path has 107 bytes at most; through the folder's descriptor it is always short.
        let folder = fs::OpenOptions::new().read(true).custom_flags(libc_o_directory()).open(&path)?;
        let short = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), proto::SOCKET_FILE);
        let listener = UnixListener::bind(&short)?;
        fs::set_permissions(path.join(proto::SOCKET_FILE), fs::Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// Takes the socket away, so that nothing else connects.
    pub(super) fn close_socket(&self, name: &str) {
        let _gone_is_fine = fs::remove_file(self.path(name).join(proto::SOCKET_FILE));
    }

    /// Removes a container's folder; gone already is success.
    pub(super) fn clear(&self, name: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The names of all folders, whether their container lives or not.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

fn libc_o_directory() -> i32 {
    i32::try_from(rustix::fs::OFlags::DIRECTORY.bits()).unwrap_or(0)
}

/// Writes the supervisor to a new file that everybody may run and nobody write.
fn write_program(path: &Path) -> io::Result<()> {
    use io::Write;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o500).open(path)?;
    file.write_all(SUPERVISOR)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_made_twice_and_removed() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("d".repeat(120));
        let folders = Folders::open(&deep).unwrap();
        let _listener = folders.stage("one").unwrap();
        let path = folders.path("one");
        let init = fs::metadata(path.join("init")).unwrap();
        assert_eq!(init.permissions().mode() & 0o777, 0o555);
        assert_eq!(init.nlink(), 2, "the supervisor is linked, not copied");
        assert_eq!(fs::metadata(path.join("socket")).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);

        folders.stage("one").unwrap();
        assert_eq!(folders.names(), ["one"]);
        folders.close_socket("one");
        assert!(!path.join("socket").exists());
        folders.clear("one").unwrap();
        folders.clear("one").unwrap();
        assert!(folders.names().is_empty());
        Folders::open(&deep).unwrap();
    }
}
