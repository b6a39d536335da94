//! Copying what a job leaves into its spool, when none of its processes is left.
//!
//! The job may have put anything there. A path is opened beneath its folder without a step over a link; only
//! a regular file with one name, on a file system that is not the kernel's own, is read, and no more of it
//! than it said it had; and everything is counted.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statfs::fstatfs;
use quickcmd_init::proto::{
    Artifact, COLLECT_PATIENCE, COLLECT_PATIENCE_STOPPED, Collect, Job, MAX_ARTIFACT_PATH, MOST_REFUSALS,
    Refusal,
};
use quickcmd_init::redact::Redactor;
use quickcmd_init::spool::{Kind, MAX_BODY};
use sha2::{Digest, Sha256};

use super::beneath;
use super::spooler::Spooler;

/// Folders inside of folders.
const DEEPEST: usize = 16;
/// Entries of folders that are looked at.
const MOST_ENTRIES: usize = 4096;
/// How often it is asked whether somebody waits for the end.
const ASK: Duration = Duration::from_millis(50);
/// Kinds of file systems whose files are made by the kernel (`linux/magic.h`): proc, sysfs, cgroup, cgroup2,
/// debugfs, tracefs, securityfs, devpts, mqueue, bpf.
const OF_THE_KERNEL: [i64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x1cd1,
    0x1980_0202,
    0xcafe_4a11,
];

/// Why something is not kept, and a sentence.
type No = (Refusal, String);

/// What is to be kept of one job.
pub struct Collector {
    wanted: Collect,
    /// Masks the values that are secret, where there are any.
    redactor: Option<Redactor>,
    /// The folder that the job starts in, opened before the job could put another in its place.
    start: nix::Result<OwnedFd>,
    found: Vec<Artifact>,
    kept: u64,
    /// Bytes that went into the spool, those of files that were given up included.
    bytes: u64,
    entries: usize,
    /// Refusals below folders that were told, and those that were not.
    told: usize,
    untold: u64,
    until: Instant,
    /// When to ask next whether somebody waits.
    ask: Instant,
}

/// Where the bytes go, and who tells whether somebody waits for the end (and does not wait itself).
struct Way<'a> {
    spool: &'a mut Spooler,
    asked: &'a mut dyn FnMut() -> bool,
}

impl Collector {
    /// To be made before the job starts. `None`: nothing is asked for.
    pub fn new(job: &Job) -> Option<Collector> {
        let wanted = job.artifacts.clone()?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Some(Collector {
            wanted,
            redactor: (!job.secrets.is_empty()).then(|| Redactor::new(&job.secrets, false)),
            start: open(job.workdir.as_str(), flags, Mode::empty()),
            found: Vec::new(),
            kept: 0,
            bytes: 0,
            entries: 0,
            told: 0,
            untold: 0,
            until: Instant::now(),
            ask: Instant::now(),
        })
    }

    /// Copies what is asked for. `ran`: the command was started; `stopped`: it was ended before its own end, and
    /// somebody waits for that; `asked`: whether somebody has begun to wait meanwhile.
    pub fn collect(
        mut self,
        ran: bool,
        stopped: bool,
        spool: &mut Spooler,
        asked: &mut dyn FnMut() -> bool,
    ) -> Vec<Artifact> {
        self.until = Instant::now() + if stopped { COLLECT_PATIENCE_STOPPED } else { COLLECT_PATIENCE };
        let way = &mut Way { spool, asked };
        for path in std::mem::take(&mut self.wanted.paths) {
            if !ran {
                self.refuse(&path, (Refusal::Missing, "the command was not started".to_owned()));
                continue;
            }
            let before = self.found.len();
            if let Err(no) = self.requested(&path, way) {
                self.refuse(&path, no);
            }
            let untold = std::mem::take(&mut self.untold);
            if untold > 0 {
                let error = format!("{untold} more entries below it were left out");
                self.refuse(&path, (Refusal::TooMany, error));
            } else if before == self.found.len() {
                self.refuse(&path, (Refusal::Missing, "there is no file below this folder".to_owned()));
            }
        }
        self.found
    }

    /// Whether there is no more time. Less is left as soon as somebody waits.
    fn is_late(&mut self, way: &mut Way<'_>) -> bool {
        let now = Instant::now();
        if now >= self.ask {
            self.ask = now + ASK;
            if (way.asked)() {
                self.until = self.until.min(now + COLLECT_PATIENCE_STOPPED);
                // Once is enough.
                self.ask = self.until;
            }
        }
        now > self.until
    }

    fn requested(&mut self, path: &str, way: &mut Way<'_>) -> Result<(), No> {
        let (file, path) = match path.strip_prefix('/') {
            Some(below) => {
                let root = beneath::root().map_err(unreadable)?;
                (open_file(root.as_fd(), below)?, path)
            }
            None => {
                let start = self.start.as_ref().map_err(|errno| unreadable(*errno))?;
                (open_file(start.as_fd(), path)?, path)
            }
        };
        self.take(file, path, 0, way)
    }

    /// Keeps a file, or what is in a folder.
    fn take(&mut self, file: OwnedFd, path: &str, depth: usize, way: &mut Way<'_>) -> Result<(), No> {
        let stat = fstat(&file).map_err(unreadable)?;
        let system = fstatfs(&file).map_err(unreadable)?.filesystem_type().0;
        if OF_THE_KERNEL.iter().any(|magic| i128::from(*magic) == i128::from(system)) {
            return Err((Refusal::NotAFile, "it belongs to a file system of the kernel's".to_owned()));
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => self.keep(File::from(file), path, &stat, way),
            libc::S_IFDIR => self.folder(file, path, depth, way),
            libc::S_IFIFO => Err(no_file("a pipe")),
            libc::S_IFSOCK => Err(no_file("a socket")),
            libc::S_IFCHR | libc::S_IFBLK => Err(no_file("a device")),
            _ => Err(no_file("no regular file")),
        }
    }

    fn folder(&mut self, folder: OwnedFd, path: &str, depth: usize, way: &mut Way<'_>) -> Result<(), No> {
        if depth >= DEEPEST {
            return Err((
                Refusal::BadName,
                format!("there are more than {DEEPEST} folders inside of each other"),
            ));
        }
        // The list has a place of its own in the folder; the names are opened from the other descriptor.
        let mut list =
            folder.try_clone().map_err(|_| Errno::EMFILE).and_then(Dir::from_fd).map_err(unreadable)?;
        let mut names = Vec::new();
        for entry in list.iter() {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                self.untold += 1;
                break;
            }
            names.push(name.to_vec());
        }
        drop(list);
        names.sort_unstable();
        for name in names {
            let shown = format!("{path}/{}", String::from_utf8_lossy(&name));
            let done = match std::str::from_utf8(&name) {
                Ok(name) if self.may_be_told(&shown) => {
                    open_file(folder.as_fd(), name).and_then(|file| self.take(file, &shown, depth + 1, way))
                }
                _ => Err((Refusal::BadName, "its name can't be told as it is".to_owned())),
            };
            if let Err(no) = done {
                if self.told < MOST_REFUSALS {
                    self.told += 1;
                    self.refuse(&shown, no);
                } else {
                    self.untold += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether a path may stand in a result.
    fn may_be_told(&self, path: &str) -> bool {
        path.len() <= MAX_ARTIFACT_PATH
            && !path.chars().any(char::is_control)
            && self.masked_text(path).is_none_or(|masked| masked == path)
    }

    fn masked_text(&self, text: &str) -> Option<String> {
        let mut redactor = self.redactor.clone()?;
        let mut masked = Vec::new();
        redactor.push(text.as_bytes(), &mut masked);
        redactor.finish(&mut masked);
        Some(String::from_utf8_lossy(&masked).into_owned())
    }

    fn refuse(&mut self, path: &str, (why, error): No) {
        let path = self.masked_text(path).unwrap_or_else(|| path.to_owned());
        let shown = path.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
        let mut path: String = shown.collect();
        // What was cut says so; it must not end as another path would.
        if let Some((at, _)) = path.char_indices().nth(MAX_ARTIFACT_PATH) {
            path.truncate(path[..at].char_indices().next_back().map_or(0, |(last, _)| last));
            path.push('…');
        }
        self.found.push(Artifact::Refused { path, why, error });
    }

    fn keep(&mut self, mut file: File, path: &str, stat: &FileStat, way: &mut Way<'_>) -> Result<(), No> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (one, all) = (self.wanted.max_file_size, self.wanted.max_total_size);
        if stat.st_nlink > 1 {
            return Err((Refusal::HardLink, "it has a second name (a hard link)".to_owned()));
        }
        let before = self.bytes;
        let too_large = |bytes: u64| {
            let error = || format!("it has {bytes} bytes; {one} of one file are kept at most");
            if bytes > one { Err((Refusal::TooLarge, error())) } else { Ok(()) }
        };
        let total_too_large = |bytes: u64| {
            let error = || format!("with it, all would have more than {all} bytes together");
            if before + bytes > all { Err((Refusal::TotalTooLarge, error())) } else { Ok(()) }
        };
        too_large(size)?;
        if self.kept >= self.wanted.max_files {
            let error = format!("{} files of one job are kept at most", self.wanted.max_files);
            return Err((Refusal::TooMany, error));
        }
        total_too_large(size)?;
        let at = way.spool.position();
        let mut redactor = self.redactor.clone();
        let mut copy = Copy { hash: Sha256::new(), written: 0 };
        let (mut read, mut original) = (0, redactor.is_some().then(Sha256::new));
        let (mut piece, mut masked) = (vec![0; MAX_BODY], Vec::new());
        let changed = || (Refusal::Changed, "it changed while it was copied".to_owned());
        let result = loop {
            if self.is_late(way) {
                break Err((Refusal::OutOfTime, "copying the artifacts took too long".to_owned()));
            }
            let n = match file.read(&mut piece) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => break Err((Refusal::Unreadable, format!("it can't be read: {error}"))),
            };
            read += n as u64;
            if read > size || (n == 0 && read < size) {
                break Err(changed());
            }
            let out = match (&mut redactor, &mut original) {
                (Some(redactor), Some(original)) => {
                    original.update(&piece[..n]);
                    masked.clear();
                    redactor.push(&piece[..n], &mut masked);
                    if n == 0 {
                        redactor.finish(&mut masked);
                    }
                    &masked[..]
                }
                _ => &piece[..n],
            };
            // What stands for a secret may be longer than it, and counts as it is kept.
            let so_far = copy.written + out.len() as u64;
            if let Err((why, error)) = too_large(so_far).and_then(|()| total_too_large(so_far)) {
                break Err((why, format!("with its secret values masked, {error}")));
            }
            if let Err(no) = copy.write(out, way.spool) {
                break Err(no);
            }
            if n == 0 {
                break Ok(());
            }
        };
        self.bytes += copy.written;
        result?;
        let now = fstat(&file).map_err(unreadable)?;
        let same = |a: &FileStat, b: &FileStat| {
            (a.st_size, a.st_mtime, a.st_mtime_nsec) == (b.st_size, b.st_mtime, b.st_mtime_nsec)
        };
        if !same(stat, &now) {
            return Err(changed());
        }
        let hash = copy.hash.finalize();
        let masked = original.is_some_and(|original| original.finalize() != hash);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.kept += 1;
        self.found.push(Artifact::Kept {
            path: path.to_owned(),
            size: copy.written,
            sha256: hex,
            mode: stat.st_mode & 0o777,
            masked,
            at,
        });
        Ok(())
    }
}

/// One file's way into the spool.
struct Copy {
    hash: Sha256,
    written: u64,
}

impl Copy {
    fn write(&mut self, bytes: &[u8], spool: &mut Spooler) -> Result<(), No> {
        for piece in bytes.chunks(MAX_BODY) {
            spool
                .append(Kind::Artifact, false, self.written, piece)
                .map_err(|error| (Refusal::Storage, format!("the agent could not store it: {error}")))?;
            self.hash.update(piece);
            self.written += piece.len() as u64;
        }
        Ok(())
    }
}

fn no_file(what: &str) -> No {
    (Refusal::NotAFile, format!("it is {what}"))
}

fn unreadable(errno: Errno) -> No {
    (Refusal::Unreadable, format!("it can't be read: {}", errno.desc()))
}

/// Without waiting for whoever should write to a pipe.
fn open_file(folder: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, No> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    beneath::open_beneath(folder, path, flags).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => (Refusal::Missing, "there is no such file".to_owned()),
        Errno::ELOOP | Errno::EXDEV => {
            (Refusal::Symlink, "it is a symbolic link, or its path leads over one".to_owned())
        }
        Errno::ENXIO => no_file("a socket, or a device"),
        other => unreadable(other),
    })
}
