//! Putting a job's files into their places, before there is a process of the job.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use quickcmd_init::proto::FileIn;

use super::beneath;

/// Bytes that are copied at once.
const PIECE: u64 = 64 << 10;

/// Takes the files' bytes, one after the other, and writes each where it belongs. What can't be placed is
/// read all the same; the inner error is a sentence for who sent the job.
///
/// # Errors
/// The channel broke before the last byte.
pub fn place(from: &mut impl Read, files: &[FileIn], workdir: &str) -> io::Result<Result<(), String>> {
    let mut placed = Ok(());
    for file in files {
        let mut rest = file.len;
        let mut open = None;
        if placed.is_ok() {
            match create(&file.path, workdir) {
                Ok(new) => open = Some(new),
                Err(error) => placed = Err(sentence(file, error)),
            }
        }
        while rest > 0 {
            let mut piece = Vec::new();
            from.take(rest.min(PIECE)).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest -= piece.len() as u64;
            if let Some(Err(error)) = open.as_mut().map(|open| open.write_all(&piece)) {
                placed = Err(sentence(file, error));
                open = None;
            }
        }
        // Last: it may be one that not even its owner may write.
        if let Some(Err(error)) = open.map(|open| fchmod(&open, Mode::from_bits_truncate(file.mode & 0o777)))
        {
            placed = Err(sentence(file, error.into()));
        }
    }
    Ok(placed)
}

fn sentence(file: &FileIn, error: io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EROFS | libc::EACCES) => {
            ": only /tmp, the work folder and the image's volumes can be written".to_owned()
        }
        Some(libc::ENOSPC) => ": the folder has no more space; tmpfs_size gives it more".to_owned(),
        Some(libc::ELOOP | libc::ENOTDIR) => ": a part of the path is a symbolic link, or a file".to_owned(),
        _ => String::new(),
    };
    format!("can't place the file {}: {error}{why}", file.path)
}

/// A new file, and the folders above it.
fn create(path: &str, workdir: &str) -> io::Result<File> {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", workdir.trim_end_matches('/'))
    };
    let whole = whole.trim_start_matches('/');
    let (folders, name) = whole.rsplit_once('/').unwrap_or(("", whole));
    let mut here: OwnedFd = beneath::root()?;
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        here = match beneath::open_beneath(here.as_fd(), part, flags) {
            Err(Errno::ENOENT) => {
                mkdirat(&here, part, Mode::from_bits_truncate(0o755))?;
                beneath::open_beneath(here.as_fd(), part, flags)?
            }
            other => other?,
        };
    }
    if matches!(name, "" | "." | "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(&here, name, flags, Mode::from_bits_truncate(0o600))?.into())
}
