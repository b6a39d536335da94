//! A filter of system calls that keeps the job's hands off the supervisor's limits and priorities.
//!
//! The job has the same user, and `prlimit` asks for no more than that: it could set the supervisor's CPU
//! time to nothing (the kernel then kills even process 1), its memory, or the size of its files. The
//! container's own profile can't tell the supervisor from the job; this filter is set in the job alone, on
//! top of that profile, and refuses such calls when they name the supervisor.
#![allow(unsafe_code)]

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Where `struct seccomp_data` has the call's number and the lower half of its first argument.
const NUMBER: u32 = 0;
const FIRST: u32 = 16;

/// The calls whose first argument is the process that they change.
#[cfg(target_arch = "x86_64")]
const CALLS: [i64; 6] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    // The same number means prlimit64 for 32-bit programs, and kexec_load, which is denied anyway, for others.
    340,
];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [i64; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
];

/// The filter's program: made before the fork, set after it.
pub struct Guard(Vec<sock_filter>);

impl Guard {
    /// Refuses the calls that name this process.
    pub fn new(supervisor: u32) -> Guard {
        let op = |code: u32, jt: usize, jf: usize, k: u32| sock_filter {
            code: u16::try_from(code).unwrap_or(0),
            jt: u8::try_from(jt).unwrap_or(0),
            jf: u8::try_from(jf).unwrap_or(0),
            k,
        };
        let load = |at| op(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
        // The bit that marks a call of the x32 kind makes no difference here.
        let mut program = vec![load(NUMBER), op(BPF_ALU | BPF_AND | BPF_K, 0, 0, !0x4000_0000)];
        for (at, call) in CALLS.iter().enumerate() {
            let rest = CALLS.len() - 1 - at;
            // To the look at the argument; the last one, if it is not meant either, past it.
            let past = if rest == 0 { 2 } else { 0 };
            program.push(op(BPF_JMP | BPF_JEQ | BPF_K, rest, past, u32::try_from(*call).unwrap_or(u32::MAX)));
        }
        program.push(load(FIRST));
        program.push(op(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, supervisor));
        program.push(op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW));
        program.push(op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1));
        Guard(program)
    }

    /// Sets it for this process and all that it starts. Where the kernel has no such filters, nothing
    /// happens: the job runs without this guard, as the sandbox's other walls allow.
    pub fn set(&self) {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).unwrap_or(0),
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to the filter, which outlives the call; the kernel copies it.
        unsafe {
            // The sandbox has set it already; a filter may only be set by who has it.
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program, 0, 0);
        }
    }
}
