//! Starting the job's first process.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use quickcmd_init::proto::{Ending, Job};

use super::guard::Guard;

/// Where a program is looked for if the job's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running job: its first process and the reading ends of its streams.
pub struct Child {
    pub pid: Pid,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What went wrong in the new process before it became the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Streams = 1,
    Folder = 2,
    Exec = 3,
    Limits = 4,
}

/// All that the new process needs, made before the fork.
struct Plan {
    /// Files to try, in this order.
    programs: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    workdir: CString,
    /// Of the size of its files.
    fsize: Option<libc::rlimit>,
    guard: Guard,
}

/// Starts the job.
///
/// # Errors
/// [`Ending::NotStarted`], with the exit code that a shell would give: 127 if there is no such program,
/// else 126.
pub fn start(job: &Job, stdin: Option<OwnedFd>) -> Result<Child, Ending> {
    let plan = plan(job)?;
    let system = |error: io::Error| trouble(format!("the sandbox could not start a process: {error}"));
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null").map_err(system)?.into(),
    };
    let (stdout, stdout_child) = pipe2(OFlag::O_CLOEXEC).map_err(|e| system(e.into()))?;
    let (stderr, stderr_child) = pipe2(OFlag::O_CLOEXEC).map_err(|e| system(e.into()))?;
    let (error, error_child) = pipe2(OFlag::O_CLOEXEC).map_err(|e| system(e.into()))?;
    let args = pointers(&plan.args);
    let env = pointers(&plan.env);
    // SAFETY: this process has one thread, so the new one is a whole copy and may do anything; it only
    // calls the system until it is replaced or ends, and never returns from here.
    let pid = match unsafe { fork() }.map_err(|e| system(e.into()))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let streams = [stdin.as_raw_fd(), stdout_child.as_raw_fd(), stderr_child.as_raw_fd()];
            // SAFETY: `args` and `env` are null-terminated lists of pointers into `plan`, which lives on.
            let (step, errno) = unsafe { become_job(&plan, streams, &args, &env) };
            let mut message = [0; 5];
            message[0] = step as u8;
            message[1..].copy_from_slice(&errno.to_le_bytes());
            // SAFETY: writes those 5 bytes and ends without running anything of the parent's.
            unsafe {
                libc::write(error_child.as_raw_fd(), message.as_ptr().cast(), message.len());
                libc::_exit(127)
            }
        }
    };
    drop((stdin, stdout_child, stderr_child, error_child));
    // The pipe closes by itself when the program has been replaced.
    let mut message = [0; 5];
    match File::from(error).read_exact(&mut message) {
        Err(_) => Ok(Child { pid, stdout, stderr }),
        Ok(()) => {
            let _ = nix::sys::wait::waitpid(pid, None);
            let errno = i32::from_le_bytes([message[1], message[2], message[3], message[4]]);
            Err(explain(job, &plan, message[0], errno))
        }
    }
}

/// From the fork to the exec. Comes back only if something failed.
///
/// # Safety
/// `args` and `env` must be null-terminated lists of pointers to C strings. To be called in a process that
/// will end if this returns.
unsafe fn become_job(
    plan: &Plan,
    streams: [i32; 3],
    args: &[*const c_char],
    env: &[*const c_char],
) -> (Step, i32) {
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: system calls with constants, descriptors that are open here, and the strings of `plan`.
    unsafe {
        // When memory is short it is the job that goes, not its supervisor. The file belongs to root as
        // long as the process is undumpable; nobody else runs here yet who could make use of the moment.
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"1000".as_ptr().cast(), 4);
        }
        // Past the C library, which keeps two signals to itself and would leave them as they were.
        let default = [0u64; 4];
        for number in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), ptr::null_mut::<u64>(), 8usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::setsid();
        for (fd, target) in streams.into_iter().zip(0..) {
            if libc::dup2(fd, target) < 0 {
                return (Step::Streams, errno());
            }
        }
        if let Some(fsize) = &plan.fsize
            && libc::setrlimit(libc::RLIMIT_FSIZE, fsize) != 0
        {
            return (Step::Limits, errno());
        }
        plan.guard.set();
        if libc::chdir(plan.workdir.as_ptr()) != 0 {
            return (Step::Folder, errno());
        }
        // As execvp: what can't be reached or is no file is passed over, a refusal is remembered.
        let mut refused = libc::ENOENT;
        for program in &plan.programs {
            libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr());
            match errno() {
                libc::ENOENT | libc::ENOTDIR => {}
                error @ (libc::EACCES | libc::EPERM) => refused = error,
                error => return (Step::Exec, error),
            }
        }
        (Step::Exec, refused)
    }
}

fn plan(job: &Job) -> Result<Plan, Ending> {
    let text = |what: &str, value: &str| {
        CString::new(value).map_err(|_| not_started(126, format!("{what} holds a NUL byte")))
    };
    let program = job.argv.first().filter(|p| !p.is_empty());
    let program = program.ok_or_else(|| not_started(127, "the job names no program".into()))?;
    let programs = if program.contains('/') {
        vec![text("the program's name", program)?]
    } else {
        let path = job.env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
        path.split(':')
            // An empty part means the present folder.
            .map(|folder| {
                text("PATH", &format!("{}/{program}", if folder.is_empty() { "." } else { folder }))
            })
            .collect::<Result<_, _>>()?
    };
    Ok(Plan {
        programs,
        args: job.argv.iter().map(|arg| text("an argument", arg)).collect::<Result<_, _>>()?,
        env: job
            .env
            .iter()
            .map(|(k, v)| text("the environment", &format!("{k}={v}")))
            .collect::<Result<_, _>>()?,
        workdir: text("the folder to start in", &job.workdir)?,
        fsize: job.fsize.map(fsize),
        guard: Guard::new(std::process::id()),
    })
}

/// Soft and hard limit alike, so that the job can't raise it; and no more than the container allows, which this
/// process can't raise either.
fn fsize(bytes: u64) -> libc::rlimit {
    let bytes = getrlimit(Resource::RLIMIT_FSIZE).map_or(bytes, |(_, hard)| bytes.min(hard));
    libc::rlimit { rlim_cur: bytes, rlim_max: bytes }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| CStr::as_ptr(s)).chain([ptr::null()]).collect()
}

fn explain(job: &Job, plan: &Plan, step: u8, errno: i32) -> Ending {
    let error = io::Error::from_raw_os_error(errno);
    let program = job.argv.first().map_or("", String::as_str);
    if step == Step::Folder as u8 {
        return not_started(126, format!("can't start in the folder {}: {error}", job.workdir));
    }
    if step == Step::Streams as u8 {
        return trouble(format!("the sandbox could not set up the job's streams: {error}"));
    }
    if step == Step::Limits as u8 {
        return trouble(format!("the sandbox could not set the job's limits: {error}"));
    }
    if errno != libc::ENOENT {
        return not_started(126, format!("{program} can't be run: {error}"));
    }
    let there = plan.programs.iter().any(|file| {
        file.to_str().is_ok_and(|file| Path::new(&job.workdir).join(file).symlink_metadata().is_ok())
    });
    if there {
        not_started(
            126,
            format!("{program} can't be run: the interpreter or loader that it names is not in the image"),
        )
    } else if program.contains('/') {
        not_started(127, format!("{program}: no such file in the image"))
    } else {
        not_started(127, format!("{program}: not found in the image's PATH"))
    }
}

fn not_started(code: i32, error: String) -> Ending {
    Ending::NotStarted { code, error, sandbox: false }
}

/// The job was not started, for a file of its own could not be put where it wants it.
pub fn not_placed(error: String) -> Ending {
    not_started(126, error)
}

/// The job was not started, and it is not to blame.
pub fn trouble(error: String) -> Ending {
    Ending::NotStarted { code: 126, error, sandbox: true }
}
