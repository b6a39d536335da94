//! Making a sandbox fit for another job of the same controller: what one leaves must be gone, for certain, or the
//! sandbox is given up.
//!
//! Its processes have been killed and collected before (`run.rs`), and with them went what only processes hold: open
//! and unnamed files, abstract sockets, locks, limits, environment, terminals. What stays in the container's
//! namespaces without a process is emptied here: files, and System V and POSIX objects. What can't be written has not
//! been: the root file system is read-only, and no job may mount.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};

/// Folders within folders, at most.
const DEPTH: u32 = 100;
/// How long emptying may take; a new sandbox is quicker then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a job may leave something.
pub struct Places {
    folders: Vec<Place>,
}

/// A mount that the job's user may write to, at its top.
struct Place {
    path: PathBuf,
    /// As it was before the first job, which may own the folder and change this.
    mode: u32,
    device: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tmpfs,
    /// POSIX message queues: no folders in it, and no extended attributes.
    Queues,
}

/// One line of `mountinfo` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    read_only: bool,
    fs: String,
}

impl Places {
    /// Looks at every mount, before the first job.
    ///
    /// # Errors
    /// There is one that could not be emptied.
    pub fn look() -> io::Result<Places> {
        let mounts = mounts(&fs::read("/proc/self/mountinfo")?);
        let mut folders = Vec::new();
        for mount in &mounts {
            if mount.read_only
                || matches!(mount.fs.as_str(), "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts")
            {
                continue;
            }
            // Nothing in there has a path any more.
            let hidden = mounts
                .iter()
                .skip_while(|later| !std::ptr::eq(*later, mount))
                .skip(1)
                .any(|later| mount.path.starts_with(&later.path));
            if hidden {
                continue;
            }
            let about = fs::symlink_metadata(&mount.path)?;
            let kind = match mount.fs.as_str() {
                "tmpfs" => Kind::Tmpfs,
                "mqueue" => Kind::Queues,
                // Docker's files in /etc, and devices.
                _ if !about.is_dir() && (is_device(&about) || !writable(&mount.path)) => continue,
                other => return Err(unsure(&mount.path, &format!("of type {other} can be written"))),
            };
            if !about.is_dir() {
                if is_device(&about) || !writable(&mount.path) {
                    continue;
                }
                return Err(unsure(&mount.path, "can be written"));
            }
            if writable(&mount.path) {
                let mode = about.mode() & 0o7777;
                folders.push(Place { path: mount.path.clone(), mode, device: about.dev(), kind });
            } else {
                nothing_writable(&mount.path, about.dev(), DEPTH)?;
            }
        }
        // Without this mount queues could be made all the same, and not be seen.
        if !folders.iter().any(|place| place.kind == Kind::Queues) {
            return Err(unsure(Path::new("/dev/mqueue"), "is not there"));
        }
        Ok(Places { folders })
    }

    /// Empties everything. There must be no process but this one.
    ///
    /// # Errors
    /// Something may be left: this sandbox must not get another job.
    pub fn empty(&self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        for place in &self.folders {
            let about = fs::symlink_metadata(&place.path)?;
            if !about.is_dir() || about.dev() != place.device {
                return Err(unsure(&place.path, "is another folder now"));
            }
            if place.kind == Kind::Tmpfs {
                if about.mode() & 0o7777 != place.mode {
                    fs::set_permissions(&place.path, Permissions::from_mode(place.mode))?;
                }
                drop_attributes(&place.path)?;
            }
            // The last pass has found nothing.
            while empty_folder(&place.path, place.device, DEPTH, until)? {}
        }
        ipc::empty()
    }
}

fn unsure(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} {what}: this sandbox can't be used again", path.display()))
}

fn is_device(about: &Metadata) -> bool {
    about.file_type().is_char_device() || about.file_type().is_block_device()
}

fn writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

/// Fails if anything in a folder that can't be written itself can be.
fn nothing_writable(folder: &Path, device: u64, depth: u32) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // What can't be looked into can't be reached, if it can't be passed either.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && access(folder, AccessFlags::X_OK).is_err() =>
        {
            return Ok(());
        }
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let about = fs::symlink_metadata(&path)?;
        if about.dev() != device || about.is_symlink() || is_device(&about) {
            continue;
        }
        if depth == 0 || writable(&path) {
            return Err(unsure(&path, "can be written"));
        }
        if about.is_dir() {
            nothing_writable(&path, device, depth - 1)?;
        }
    }
    Ok(())
}

/// Removes what is in a folder; whether there was anything. What is mounted in it stays, it is a place of its own.
fn empty_folder(folder: &Path, device: u64, depth: u32, until: Instant) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(folder)? {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "emptying takes too long"));
        }
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            fs::remove_file(&path)?;
            found = true;
            continue;
        }
        let about = fs::symlink_metadata(&path)?;
        if about.dev() != device {
            continue;
        }
        if depth == 0 {
            return Err(unsure(&path, "lies too deep"));
        }
        if about.mode() & 0o700 != 0o700 {
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        }
        while empty_folder(&path, device, depth - 1, until)? {}
        fs::remove_dir(&path)?;
        found = true;
    }
    Ok(found)
}

/// Removes extended attributes, access lists among them.
fn drop_attributes(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // Mostly there are none, and the length alone says so.
    let Some(length) = attributes(&name, &mut [])? else { return Ok(()) };
    let mut list = vec![0u8; length];
    let length = attributes(&name, &mut list)?.unwrap_or(0);
    for attribute in list[..length].split_inclusive(|byte| *byte == 0).filter(|one| one.len() > 1) {
        // The system's own, which no job may set.
        if attribute.starts_with(b"security.") || attribute.starts_with(b"trusted.") {
            continue;
        }
        // SAFETY: both are null-terminated; the system ends each name in its list so.
        if unsafe { libc::lremovexattr(name.as_ptr(), attribute.as_ptr().cast()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Writes the names of a file's attributes into the list and says how many bytes they have; without a list only that. `None`:
/// there are none.
fn attributes(name: &CString, list: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the path is null-terminated, and the list as long as is said; one of no length is not written to.
    let length = unsafe { libc::llistxattr(name.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    match usize::try_from(length) {
        Ok(length) => Ok((length > 0).then_some(length)),
        Err(_) => {
            let error = io::Error::last_os_error();
            // A file system without any.
            if error.raw_os_error() == Some(libc::ENOTSUP) { Ok(None) } else { Err(error) }
        }
    }
}

fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = fields.nth(4)?;
    let options = fields.next()?;
    // A number of optional fields, up to a lonely dash.
    let fs = fields.by_ref().skip_while(|field| *field != b"-").nth(1)?;
    let super_options = fields.nth(1).unwrap_or_default();
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|option| option == b"ro");
    Some(Mount {
        path: PathBuf::from(std::ffi::OsString::from_vec(unescape(path))),
        read_only: is_read_only(options) || is_read_only(super_options),
        fs: String::from_utf8_lossy(fs).into_owned(),
    })
}

/// Spaces and the like stand as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let octal = text.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) if byte == b'\\' => {
                out.push(meant);
                at += 4;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// System V objects: they stay in the namespace when their processes are gone.
mod ipc {
    use std::io;

    use super::fs;

    /// The objects of one kind.
    struct Kind {
        /// The kernel's list of them.
        list: &'static str,
        /// Fills in what the kernel counts of them; negative if it does not tell.
        info: fn(&mut Info) -> libc::c_int,
        /// Where in that stands how many there are.
        count: usize,
        remove: fn(i32) -> libc::c_int,
    }

    /// As large as any of the structures that the calls below fill in, and larger.
    type Info = [libc::c_int; 64];

    /// From `linux/shm.h`; the C library hides it.
    const SHM_INFO: libc::c_int = 14;

    const KINDS: [Kind; 3] = [
        Kind {
            list: "/proc/sysvipc/shm",
            // SAFETY: a `struct shm_info` is written, which has room in it.
            info: |info| unsafe { libc::shmctl(0, SHM_INFO, info.as_mut_ptr().cast()) },
            // `used_ids`.
            count: 0,
            // SAFETY: removal takes a number and no memory.
            remove: |id| unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) },
        },
        Kind {
            list: "/proc/sysvipc/sem",
            // SAFETY: a `struct seminfo` is written, which has room in it.
            info: |info| unsafe { libc::semctl(0, 0, libc::SEM_INFO, info.as_mut_ptr()) },
            // `semusz`.
            count: 7,
            // SAFETY: as above.
            remove: |id| unsafe { libc::semctl(id, 0, libc::IPC_RMID) },
        },
        Kind {
            list: "/proc/sysvipc/msg",
            // SAFETY: a `struct msginfo` is written, which has room in it.
            info: |info| unsafe { libc::msgctl(0, libc::MSG_INFO, info.as_mut_ptr().cast()) },
            // `msgpool`.
            count: 0,
            // SAFETY: as above.
            remove: |id| unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) },
        },
    ];

    pub fn empty() -> io::Result<()> {
        for Kind { list, info, count, remove } in KINDS {
            // Mostly there is nothing, and one call says so. Where it does not, the list counts.
            let mut answer = [-1; 64];
            if info(&mut answer) >= 0 && answer[count] == 0 {
                continue;
            }
            let ids = ids(list)?;
            for id in &ids {
                if remove(*id) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if !ids.is_empty() && !self::ids(list)?.is_empty() {
                return Err(io::Error::other(format!("{list} is not empty")));
            }
        }
        Ok(())
    }

    /// The second column of every line but the first.
    fn ids(list: &str) -> io::Result<Vec<i32>> {
        let text = match fs::read_to_string(list) {
            // A kernel without them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let id = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
        text.lines()
            .skip(1)
            .map(|line| id(line).ok_or_else(|| io::Error::other(format!("{list} can't be understood"))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_folder_is_emptied_whatever_is_in_it() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::write(root.join("-rf \n"), "x").unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        symlink("nowhere", root.join(".hidden")).unwrap();
        let deep = root.join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        fs::set_permissions(&deep, Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(root.join("a"), Permissions::from_mode(0o100)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();

        let device = fs::metadata(root).unwrap().dev();
        while empty_folder(root, device, DEPTH, far()).unwrap() {}
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists(), "a link is not followed");
    }

    #[test]
    fn too_deep_too_slow_and_another_device_are_no_success() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let device = fs::metadata(root).unwrap().dev();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        assert!(empty_folder(root, device, 1, far()).is_err());
        assert!(empty_folder(root, device, DEPTH, Instant::now() - Duration::from_secs(1)).is_err());
        assert!(!empty_folder(root, device + 1, DEPTH, far()).unwrap(), "what is mounted there stays");
        assert!(root.join("a/b/c").exists());
    }

    #[test]
    fn the_kernels_list_of_mounts_is_read() {
        let text = b"515 514 0:44 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/x\n\
            516 515 0:47 / /proc rw,nosuid - proc proc rw\n\
            517 515 0:48 / /with\\040space rw,nosuid shared:7 master:2 - tmpfs tmpfs rw,size=65536k\n\
            518 515 0:49 / /super rw - tmpfs tmpfs ro\n";
        let mount =
            |path: &str, read_only, fs: &str| Mount { path: path.into(), read_only, fs: fs.to_owned() };
        assert_eq!(
            mounts(text),
            [
                mount("/", true, "overlay"),
                mount("/proc", false, "proc"),
                mount("/with space", false, "tmpfs"),
                mount("/super", true, "tmpfs"),
            ]
        );
    }
}
