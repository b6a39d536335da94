//! An archive in the format of `tar` (POSIX.1-2001, pax), made piece by piece.

use crate::base::clock::Timestamp;

/// Everything is a multiple of it.
const BLOCK: usize = 512;

/// What stands at the end.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What stands before a file's bytes. The path is relative.
pub(super) fn header(path: &str, size: u64, mode: u32, at: Timestamp) -> Vec<u8> {
    let seconds = u64::try_from(at.secs()).unwrap_or(0);
    // What the old fields have no room for, or no alphabet, stands in records before the file.
    let mut records = Vec::new();
    if path.len() > 100 || !path.is_ascii() {
        records.extend(record("path", path));
    }
    if size >= 1 << 33 {
        records.extend(record("size", &size.to_string()));
    }
    let mut out = Vec::with_capacity(4 * BLOCK);
    if !records.is_empty() {
        out.extend(block("pax/header", records.len() as u64, 0o644, seconds, b'x'));
        let padding = padding(records.len() as u64);
        out.extend(records);
        out.extend(padding);
    }
    let short: String = path.chars().map(|c| if c.is_ascii() { c } else { '_' }).take(100).collect();
    out.extend(block(&short, size, mode, seconds, b'0'));
    out
}

/// What stands behind a file's bytes.
pub(super) fn padding(size: u64) -> Vec<u8> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    vec![0; (BLOCK - over) % BLOCK]
}

/// `LENGTH KEY=VALUE`, where the length counts itself.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn block(name: &str, size: u64, mode: u32, seconds: u64, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let octal = |value: u64, digits: usize| {
        let most = (1u64 << (3 * digits)) - 1;
        format!("{:0digits$o}\0", value.min(most)).into_bytes()
    };
    put(0, name.as_bytes());
    put(100, &octal(mode.into(), 7));
    put(108, &octal(0, 7));
    put(116, &octal(0, 7));
    put(124, &octal(size, 11));
    put(136, &octal(seconds, 11));
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, process::Command};

    use super::*;

    #[test]
    fn the_systems_own_tar_reads_it() {
        let long = format!("deep/{}/file with spaces", "x".repeat(200));
        let files: [(&str, &[u8], u32); 4] = [
            ("a", b"hello", 0o755),
            ("b/empty", b"", 0o644),
            ("ü/ß", &[7; 512], 0o600),
            (&long, &[9; 513], 0o644),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        for (path, bytes, mode) in files {
            archive.extend(header(path, bytes.len() as u64, mode, Timestamp::from_secs(1_700_000_000)));
            archive.extend(bytes);
            archive.extend(padding(bytes.len() as u64));
        }
        archive.extend(END);
        assert_eq!(archive.len() % BLOCK, 0);
        let path = folder.path().join("archive.tar");
        std::fs::write(&path, &archive).unwrap();
        let tar = Command::new("tar").arg("-xpf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
        for (name, bytes, mode) in files {
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), bytes, "{name}");
            let found = folder.path().join(name).metadata().unwrap();
            assert_eq!((found.mode() & 0o777, found.mtime()), (mode, 1_700_000_000), "{name}");
        }
    }

    #[test]
    fn a_record_counts_itself() {
        for length in 1..300 {
            let record = record("path", &"x".repeat(length));
            let text = std::str::from_utf8(&record).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), record.len().to_string());
        }
    }
}
