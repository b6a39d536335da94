//! Opening files below a folder without ever leaving it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

/// Tries of an `openat2` that something else in the file system disturbs.
const TRIES: u32 = 8;

/// The root folder.
pub fn root() -> nix::Result<OwnedFd> {
    open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens what lies below a folder. No part of the path may be a symbolic link, a magic link of `/proc`, or
/// lead out of the folder. The path is relative, without `.` and `..`.
///
/// # Errors
/// Those of the system; `ELOOP` for a link, `EXDEV` for a way out.
pub fn open_beneath(folder: BorrowedFd<'_>, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    for _ in 0..TRIES {
        match openat2(folder, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A kernel before 5.6, or one that is none (gVisor).
            Err(Errno::ENOSYS) => return walk(folder, path, flags),
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// The same, step by step.
fn walk(folder: BorrowedFd<'_>, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut parts = path.split('/').peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if matches!(part, "" | "." | "..") {
            return Err(Errno::EXDEV);
        }
        let at = here.as_ref().map_or(folder, AsFd::as_fd);
        let flags = if parts.peek().is_some() { step } else { flags };
        let next = openat(at, part, flags, Mode::empty());
        // With O_DIRECTORY a link says that it is no folder.
        here = Some(match next {
            Err(Errno::ENOTDIR) if is_link(at, part) => return Err(Errno::ELOOP),
            other => other?,
        });
    }
    here.ok_or(Errno::ENOENT)
}

fn is_link(folder: BorrowedFd<'_>, name: &str) -> bool {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    nix::sys::stat::fstatat(folder, name, flags)
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_see_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("a", at("folder-link")).unwrap();
        std::os::unix::fs::symlink("a/b/file", at("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("out")).unwrap();
        let folder = open(dir.path(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for (path, wanted) in [
            ("a/b/file", Ok(())),
            ("a/b", Ok(())),
            ("a/c", Err(Errno::ENOENT)),
            ("a/b/file/x", Err(Errno::ENOTDIR)),
            ("link", Err(Errno::ELOOP)),
            ("out", Err(Errno::ELOOP)),
            ("folder-link/b/file", Err(Errno::ELOOP)),
        ] {
            let opened = open_beneath(folder.as_fd(), path, OFlag::O_RDONLY).map(drop);
            assert_eq!(opened, wanted, "{path}");
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            assert_eq!(walk(folder.as_fd(), path, flags).map(drop), wanted, "{path}, step by step");
        }
        for path in ["../etc", "/etc/passwd", "a/../../etc"] {
            assert_eq!(
                open_beneath(folder.as_fd(), path, OFlag::O_RDONLY).err(),
                Some(Errno::EXDEV),
                "{path}"
            );
            assert_eq!(walk(folder.as_fd(), path, OFlag::O_RDONLY).err(), Some(Errno::EXDEV), "{path}");
        }
    }
}
