//! Putting files below a folder of ours under names that somebody else has chosen: never outside of it, and
//! never through a link.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};

use crate::base::ids::random_hex;

/// A folder that files land in.
#[derive(Debug)]
pub struct Landing {
    folder: OwnedFd,
}

/// A file on its way; gone again unless it is [`Landed::keep`]t.
#[derive(Debug)]
pub struct Landed {
    pub file: File,
    folder: OwnedFd,
    /// Its name until it is whole.
    draft: String,
    name: String,
    kept: bool,
}

/// The parts of a path, if it can't lead out of the folder that it is put behind.
fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let good = |part: &&str| !matches!(*part, "" | "." | "..") && !part.chars().any(char::is_control);
    parts.iter().all(good).then_some(parts)
}

impl Landing {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// It can't be made or is none.
    pub fn open(folder: &Path) -> io::Result<Landing> {
        fs::create_dir_all(folder)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Landing { folder: rustix::fs::open(folder, flags, Mode::empty())? })
    }

    /// A new file below the folder, with the folders above it.
    ///
    /// # Errors
    /// The path leads out of the folder, over a link or over a file; or the disk says no.
    pub fn land(&self, path: &str, executable: bool) -> io::Result<Landed> {
        let parts = parts(path).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "its path would lead out of the folder")
        })?;
        let (name, folders) = parts.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        // One part at a time, which is no link: there is no way out.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.folder.try_clone()?;
        for part in folders {
            folder = match openat(&folder, *part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, *part, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    openat(&folder, *part, flags, Mode::empty())?
                }
                other => other?,
            };
        }
        let draft = format!(".quickcmd-{}.part", random_hex(8));
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, &draft, flags, mode)?);
        Ok(Landed { file, folder, draft, name: (*name).to_owned(), kept: false })
    }
}

impl Landed {
    /// Gives the file its name. What had the name before, also a link, is replaced and not written to.
    ///
    /// # Errors
    /// A folder has that name, or the disk says no.
    pub fn keep(mut self) -> io::Result<()> {
        renameat(&self.folder, &self.draft, &self.folder, &self.name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Landed {
    fn drop(&mut self) {
        if !self.kept {
            let _ = unlinkat(&self.folder, &self.draft, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn nothing_lands_outside() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let landing = Landing::open(&folder.path().join("new/folder")).unwrap();
        let inside = folder.path().join("new/folder");
        fs::write(outside.path().join("victim"), "old").unwrap();
        symlink(outside.path(), inside.join("link")).unwrap();
        symlink(outside.path().join("victim"), inside.join("file-link")).unwrap();
        for bad in ["../x", "a/../../x", "..", ".", "", "/", "a//b", "a/./b", "a/", "link/x", "a\nb", "a\0b"]
        {
            assert!(landing.land(bad, false).is_err(), "{bad:?}");
        }
        for good in ["a", "deep/er/file", "/tmp/absolute", "file-link", "...", "a"] {
            let mut landed = landing.land(good, true).unwrap();
            landed.file.write_all(good.as_bytes()).unwrap();
            landed.keep().unwrap();
            let found = fs::read(inside.join(good.trim_start_matches('/'))).unwrap();
            assert_eq!(found, good.as_bytes(), "{good}");
        }
        assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"old", "the link was replaced");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        drop(landing.land("dropped", false).unwrap());
        let names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("part")), "{names:?}");
        assert!(landing.land("deep", false).unwrap().keep().is_err(), "a folder has that name");
    }
}
