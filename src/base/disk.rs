//! What a power cut leaves of a new file or folder: nothing, until the folder that it is in has been brought to the
//! disk, too.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Brings a folder's list of names to the disk: the names that were added, moved or removed before stay so. Blocks.
///
/// # Errors
/// The folder can't be opened, or the disk says no.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems have no such thing: the names are as safe there as they can be.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// Makes a folder (0700) and those above that are missing, each of them on the disk. Does nothing where it is there
/// already. Blocks.
///
/// # Errors
/// It can't be made, or the disk says no.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = parent(folder);
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_folder(parent)
}

/// The folder that a path is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folders_are_made_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        make_folder(&deep).unwrap();
        make_folder(&deep).unwrap();
        for part in ["a", "a/b", "a/b/c"] {
            let mode = folder.path().join(part).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{part}");
        }
        std::fs::write(deep.join("file"), "").unwrap();
        assert!(make_folder(&deep.join("file")).is_err());
        assert!(make_folder(&deep.join("file/below")).is_err());
        assert!(sync_folder(&deep.join("none")).is_err());
        assert_eq!(parent(Path::new("file")), Path::new("."));
    }
}
