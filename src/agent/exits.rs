//! Every exit code of `quickcmd-agent`, and which of them each verb has.

/// `preflight` has found something dangerous.
pub const DANGEROUS: u8 = 1;
/// The configuration or the command line is wrong (`EX_USAGE`): the unit does not start the agent again for it.
pub const CONFIG: u8 = 64;
/// What was asked for can't be done as things stand.
pub const REFUSED: u8 = 69;
/// A defect.
pub const SOFTWARE: u8 = 70;
/// The system: port, disk, database, user.
pub const SYSTEM: u8 = 71;
/// Standard output could not be written (`EX_IOERR`).
pub const OUTPUT: u8 = 74;
/// Its reader has gone: what a shell says of a program that SIGPIPE ended.
pub const BROKEN_PIPE: u8 = 141;

/// For `--help` and docs/operations.md.
pub const TABLE: &str = "\
Exit codes:
  0    done
  1    preflight: something is dangerous
  64   the configuration or the command line is wrong
  69   refused as things stand: the sentence says why
  70   a defect
  71   the system: port, disk, database, file, user
  74   the answer could not be written to standard output
  141  the reader of the answer had gone";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_same_table_and_the_table_every_code() {
        let documented = include_str!("../../docs/operations.md");
        for line in TABLE.lines().skip(1) {
            assert!(documented.contains(line.trim_start()), "docs/operations.md lacks: {line}");
        }
        for code in [DANGEROUS, CONFIG, REFUSED, SOFTWARE, SYSTEM, OUTPUT, BROKEN_PIPE] {
            assert!(TABLE.contains(&format!("\n  {code} ")), "{code}");
        }
    }
}
