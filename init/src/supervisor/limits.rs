//! What the supervisor does to itself before it talks to anybody.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

/// Closes inherited descriptors, and keeps the job, which has the same user, from looking into this
/// process: no ptrace, no `/proc/1/fd`, `mem`, `environ`, `root`.
pub fn shut_doors() -> io::Result<()> {
    close_inherited();
    // SAFETY: plain system calls on this process; no memory is passed.
    unsafe {
        if libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getpid() != 1 && libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Closes everything above the three standard streams. Nothing else has been opened yet.
fn close_inherited() {
    // SAFETY: no descriptor above 2 is owned by anything in this process yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } == 0 {
        return;
    }
    // An old kernel, or a filter that does not know the call. The list is made before the first close:
    // closing while reading the folder would skip some.
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // SAFETY: as above; the folder's own descriptor is closed already, which is EBADF and no harm.
        unsafe { libc::close(fd) };
    }
}
