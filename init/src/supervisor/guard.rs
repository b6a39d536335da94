//! A filter of system calls that keeps the job's hands off the supervisor's limits and priorities.
//!
//! The job has the same user, and `prlimit` asks for no more than that: it could set the supervisor's CPU
//! time to nothing (the kernel then kills even process 1), its memory, or the size of its files. The
//! container's own profile can't tell the supervisor from the job; this filter is set in the job alone, on
//! top of that profile, and refuses such calls when they name the supervisor.
#![allow(unsafe_code)]

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, sock_filter,
};

/// Where `struct seccomp_data` has the call's number and the lower halves of its first two arguments.
const NUMBER: u32 = 0;
const FIRST: u32 = 16;
const SECOND: u32 = 24;

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

/// The calls whose first argument says how the second names whom they change, and what it must be to name one
/// process. By group or by user they would reach the supervisor without its number.
const BY_KIND: [(i64, u32); 2] =
    [(libc::SYS_setpriority, PRIO_PROCESS), (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS)];

/// From `sys/resource.h`; C libraries differ in its type.
const PRIO_PROCESS: u32 = 0;
/// From `linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: u32 = 1;

/// The filter's program: made before the fork, set after it.
pub struct Guard(Vec<sock_filter>);

impl Guard {
    /// Refuses the calls that name this process, or may mean it without naming it.
    pub fn new(supervisor: u32) -> Guard {
        let op = |code: u32, jt: usize, jf: usize, k: u32| sock_filter {
            code: u16::try_from(code).unwrap_or(0),
            jt: u8::try_from(jt).unwrap_or(0),
            jf: u8::try_from(jf).unwrap_or(0),
            k,
        };
        let load = |at| op(BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
        let equals = |k: u32, jt, jf| op(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, k);
        let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
        // The bit that marks a call of the x32 kind makes no difference here.
        let mut program = vec![load(NUMBER), op(BPF_ALU | BPF_AND | BPF_K, 0, 0, !0x4000_0000)];
        // Jumps are counted from the next instruction. What comes after the comparisons of the number:
        //   allow
        //   for each kind: load the first argument; is it a process? to `second`; refuse
        //   second: load the second argument; to `who`
        //   first: load the first argument
        //   who: is it the supervisor? refuse : allow
        let kinds = BY_KIND.len();
        let to_allow = CALLS.len() + kinds;
        let to_kind = |kind: usize| to_allow + 1 + 3 * kind;
        let to_second = to_kind(kinds);
        let to_first = to_second + 2;
        let compared = CALLS.iter().map(|call| (*call, to_first));
        let by_kind = BY_KIND.iter().enumerate().map(|(kind, (call, _))| (*call, to_kind(kind)));
        for (at, (call, target)) in compared.chain(by_kind).enumerate() {
            program.push(equals(number(call), target - at - 1, 0));
        }
        let allow = op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
        let refuse = op(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1);
        program.push(allow);
        for (kind, (_, process)) in BY_KIND.iter().enumerate() {
            program.push(load(FIRST));
            program.push(equals(*process, to_second - to_kind(kind) - 2, 0));
            program.push(refuse);
        }
        program.push(load(SECOND));
        // Past the load of the first argument.
        program.push(op(BPF_JMP | BPF_JA, 0, 0, 1));
        program.push(load(FIRST));
        program.push(equals(supervisor, 1, 0));
        program.push(allow);
        program.push(refuse);
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
