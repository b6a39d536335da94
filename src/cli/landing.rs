//! Putting files below a folder of ours under names that somebody else has chosen: never outside of it, and
//! never through a link.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use crate::base::ids::random_hex;

/// A folder that files land in.
#[derive(Debug)]
pub struct Landing {
    folder: OwnedFd,
    /// As it was named, for what is said.
    named: PathBuf,
}

/// A file on its way; gone again unless it is [`Landed::keep`]t.
#[derive(Debug)]
pub struct Landed {
    pub file: File,
    folder: OwnedFd,
    /// Its name until it is whole.
    draft: String,
    name: String,
    /// Where it lands, for what is said.
    place: PathBuf,
    kept: bool,
}

/// The parts of a path, if it can't lead out of the folder that it is put behind.
fn parts(path: &str) -> Option<Vec<&str>> {
    let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let good = |part: &&str| !matches!(*part, "" | "." | "..") && !part.chars().any(char::is_control);
    parts.iter().all(good).then_some(parts)
}

/// What is in the way, in a sentence.
fn in_the_way(place: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is {what}", place.display()))
}

/// Whether a file may take that name: nothing has it, or a file that it replaces.
fn free(folder: impl AsFd, name: &str, place: &Path) -> io::Result<()> {
    let there = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match there {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => {
            Err(in_the_way(place, "a symbolic link, and nothing is written over or through one"))
        }
        FileType::Directory => Err(in_the_way(place, "a folder, and the artifact is a file")),
        _ => Err(in_the_way(place, "no regular file")),
    }
}

impl Landing {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// It can't be made or is none.
    pub fn open(folder: &Path) -> io::Result<Landing> {
        fs::create_dir_all(folder).map_err(|error| {
            // That "File exists" says neither which one nor what is wrong with it.
            let other = |path: &&Path| path.symlink_metadata().is_ok() && !path.is_dir();
            match folder.ancestors().find(other) {
                Some(there) => in_the_way(there, "no folder"),
                None => error,
            }
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Landing { folder: opened, named: folder.to_owned() })
    }

    /// A new file below the folder, with the folders above it.
    ///
    /// # Errors
    /// The path leads out of the folder, over a link or over a file; what has its name is no file; or the disk says no.
    pub fn land(&self, path: &str, executable: bool) -> io::Result<Landed> {
        let parts = parts(path).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "its path would lead out of the folder")
        })?;
        let (name, folders) = parts.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        // One part at a time, which is no link: there is no way out.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.folder.try_clone()?;
        let mut place = self.named.clone();
        for part in folders {
            place.push(part);
            folder = match openat(&folder, *part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, *part, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    openat(&folder, *part, flags, Mode::empty())?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    // A link is none either, whatever it leads to.
                    free(&folder, part, &place)?;
                    return Err(in_the_way(&place, "a file, and a folder is needed there"));
                }
                other => other?,
            };
        }
        place.push(name);
        // Before anything is fetched; `keep` looks again.
        free(&folder, name, &place)?;
        let draft = format!(".quickcmd-{}.part", random_hex(8));
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, &draft, flags, mode)?);
        Ok(Landed { file, folder, draft, name: (*name).to_owned(), place, kept: false })
    }
}

impl Landed {
    /// Gives the file its name. A file that had the name before is replaced and not written to; so is a link that
    /// somebody puts there in this very moment.
    ///
    /// # Errors
    /// Something else than a file has that name, or the disk says no.
    pub fn keep(mut self) -> io::Result<()> {
        free(&self.folder, &self.name, &self.place)?;
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
        for bad in ["../x", "a/../../x", "..", ".", "", "/", "a//b", "a/./b", "a/", "a\nb", "a\0b"] {
            assert!(landing.land(bad, false).is_err(), "{bad:?}");
        }
        for good in ["a", "deep/er/file", "/tmp/absolute", "...", "a"] {
            let mut landed = landing.land(good, true).unwrap();
            landed.file.write_all(good.as_bytes()).unwrap();
            landed.keep().unwrap();
            let found = fs::read(inside.join(good.trim_start_matches('/'))).unwrap();
            assert_eq!(found, good.as_bytes(), "{good}");
        }
        for (path, place, what) in [
            ("link/x", "link", "a symbolic link"),
            ("link/deep/er", "link", "a symbolic link"),
            ("link", "link", "a symbolic link"),
            ("file-link", "file-link", "a symbolic link"),
            ("a/x", "a", "a file, and a folder is needed there"),
            ("deep", "deep", "a folder, and the artifact is a file"),
        ] {
            let said = landing.land(path, false).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("{} is {what}", inside.join(place).display())),
                "{path}: {said}"
            );
        }
        // One that comes while the file is on its way.
        let landed = landing.land("late", false).unwrap();
        symlink(outside.path().join("victim"), inside.join("late")).unwrap();
        assert!(landed.keep().unwrap_err().to_string().contains("a symbolic link"));
        assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"old");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        drop(landing.land("dropped", false).unwrap());
        let names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("part")), "{names:?}");
        for (folder, there) in [(inside.join("a/b"), inside.join("a")), (inside.join("a"), inside.join("a"))]
        {
            let said = Landing::open(&folder).unwrap_err().to_string();
            assert_eq!(said, format!("{} is no folder", there.display()));
        }
    }
}
