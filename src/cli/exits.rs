//! Every exit code of `quickcmd`. A job's own code passes through; ours lie where sysexits.h has them,
//! 64 to 78, which few programs use.

pub const OK: u8 = 0;
/// The job ran into its time limit, as `timeout` of coreutils says it.
pub const TIMEOUT: u8 = 124;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// An answer is not one of a QuickCMD agent, or what arrived is not what was recorded.
pub const DATA: u8 = 65;
/// A local file can't be read.
pub const NO_INPUT: u8 = 66;
/// There is no such job or artifact, or no longer kept.
pub const NOT_FOUND: u8 = 67;
/// The agent can't be reached, or its answer was lost.
pub const UNAVAILABLE: u8 = 69;
/// A defect, here or in the agent.
pub const SOFTWARE: u8 = 70;
/// The agent took the job but could not run it: no image, no sandbox.
pub const NOT_RUN: u8 = 71;
/// It is not known whether or how the job ran.
pub const UNKNOWN: u8 = 72;
/// A local file can't be made.
pub const CANT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO: u8 = 74;
/// Try again later: too many requests, a full queue, a draining agent, a job that waited too long.
pub const TRY_LATER: u8 = 75;
/// The agent's certificate is not trusted.
pub const TLS: u8 = 76;
/// The agent refused: signature, controller, scope, image, limit, policy.
pub const REFUSED: u8 = 77;
/// The configuration is wrong or incomplete.
pub const CONFIG: u8 = 78;
/// Nobody reads our output any more: 128 + SIGPIPE.
pub const BROKEN_PIPE: u8 = 141;

/// The exit code of an end by signal, as a shell says it.
pub fn signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

/// For `--help` and docs/cli.md.
pub const TABLE: &str = "\
Exit codes:
  0        success; for `run` and `submit --wait` the job's own code, whatever it is
  124      the job ran into its time limit
  128+n    the job was ended by signal n; 130 or 143: cancelled by Ctrl-C or SIGTERM here
  64       the command line is wrong
  65       the answer is not an agent's, or output does not match its recorded hash
  66       a local file can't be read
  67       no such job or artifact, or no longer kept
  69       the agent can't be reached
  70       a defect, here or in the agent
  71       the agent took the job but could not run it (image, sandbox)
  72       it is not known whether or how the job ran
  73       a local file can't be made
  74       reading or writing failed
  75       try again later (rate limit, full queue, draining, waited too long)
  76       the agent's certificate is not trusted
  77       the agent refused (signature, controller, scope, image, limit, policy)
  78       the configuration is wrong or incomplete";

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_has_the_same_table() {
        let documented = include_str!("../../docs/cli.md");
        for line in super::TABLE.lines().skip(1) {
            assert!(documented.contains(line.trim_start()), "docs/cli.md lacks: {line}");
        }
    }
}
