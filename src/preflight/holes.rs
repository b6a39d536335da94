//! Known holes by version: a small table with sources, for what lets a container out or lets others in. No replacement
//! for the distribution's own notices, and it says how old it is.

use super::Level;

/// When this table was last gone through.
pub(super) const AS_OF: &str = "2026-04";

/// One hole.
#[derive(Debug)]
pub(super) struct Hole {
    pub product: &'static str,
    pub id: &'static str,
    /// When it was published.
    pub published: &'static str,
    pub what: &'static str,
    pub level: Level,
    /// The first version that has it; all before the fixes otherwise.
    pub since: Option<Number>,
    /// The first version of each branch without it, ascending. A branch above the last one never had it.
    pub fixed: &'static [Number],
    pub source: &'static str,
}

/// A version's numbers, and that of the pre-release, which comes before the release.
pub(super) type Number = ([u32; 3], u32);

/// In the place of a pre-release's number: it is none.
pub(super) const RELEASE: u32 = u32::MAX;

const fn v(a: u32, b: u32, c: u32) -> Number {
    ([a, b, c], RELEASE)
}

const fn rc(a: u32, b: u32, c: u32, number: u32) -> Number {
    ([a, b, c], number)
}

/// A version as it is written.
pub(super) fn written(([a, b, c], pre): Number) -> String {
    if pre == RELEASE { format!("{a}.{b}.{c}") } else { format!("{a}.{b}.{c}-rc{pre}") }
}

pub(super) const HOLES: &[Hole] = &[
    Hole {
        product: "runc",
        id: "CVE-2021-30465",
        published: "2021-05-19",
        what: "a symbolic link swapped during a mount leads to the host",
        level: Level::Danger,
        since: None,
        fixed: &[rc(1, 0, 0, 95)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-c3xm-pvg7-gh7r",
    },
    Hole {
        product: "runc",
        id: "CVE-2024-21626",
        published: "2024-01-31",
        what: "a leaked descriptor leads out of the container",
        level: Level::Danger,
        since: Some(rc(1, 0, 0, 93)),
        fixed: &[v(1, 1, 12)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv",
    },
    Hole {
        product: "runc",
        id: "CVE-2024-45310",
        published: "2024-09-03",
        what: "empty files can be made on the host",
        level: Level::Warning,
        since: None,
        fixed: &[v(1, 1, 14), rc(1, 2, 0, 3)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-jfvp-7x6p-h2pv",
    },
    Hole {
        product: "runc",
        id: "CVE-2025-31133",
        published: "2025-11-05",
        what: "masked paths can be turned into the host's files",
        level: Level::Danger,
        since: None,
        fixed: &[v(1, 2, 8), v(1, 3, 3), rc(1, 4, 0, 3)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
    },
    Hole {
        product: "runc",
        id: "CVE-2025-52565",
        published: "2025-11-05",
        what: "the mount of /dev/console leads to the host's files",
        level: Level::Danger,
        since: Some(rc(1, 0, 0, 3)),
        fixed: &[v(1, 2, 8), v(1, 3, 3), rc(1, 4, 0, 3)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-qw9x-cqr3-wc7r",
    },
    Hole {
        product: "runc",
        id: "CVE-2025-52881",
        published: "2025-11-05",
        what: "writes to /proc can be led elsewhere, past the security module",
        level: Level::Danger,
        since: None,
        fixed: &[v(1, 2, 8), v(1, 3, 3), rc(1, 4, 0, 3)],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-cgrx-mc8f-2prm",
    },
    Hole {
        product: "containerd",
        id: "CVE-2020-15257",
        published: "2020-11-30",
        what: "containers in the host's network reach its own socket",
        level: Level::Warning,
        since: None,
        fixed: &[v(1, 3, 9), v(1, 4, 3)],
        source: "https://github.com/containerd/containerd/security/advisories/GHSA-36xw-fx78-c5r4",
    },
    Hole {
        product: "containerd",
        id: "CVE-2024-25621",
        published: "2025-11-06",
        what: "its folders are open to the host's users",
        level: Level::Warning,
        since: None,
        fixed: &[v(1, 7, 29), v(2, 0, 7), v(2, 1, 5), v(2, 2, 0)],
        source: "https://github.com/containerd/containerd/security/advisories/GHSA-pwhc-rpq9-4c8w",
    },
    Hole {
        product: "Docker",
        id: "CVE-2021-41091",
        published: "2021-10-04",
        what: "the host's users reach programs inside of images",
        level: Level::Warning,
        since: None,
        fixed: &[v(20, 10, 9)],
        source: "https://github.com/moby/moby/security/advisories/GHSA-3fwx-pjgw-3558",
    },
    Hole {
        product: "Docker",
        id: "CVE-2024-41110",
        published: "2024-07-23",
        what: "requests without a body pass authorization plugins (only where there are any)",
        level: Level::Warning,
        since: Some(v(19, 3, 0)),
        fixed: &[v(23, 0, 15), v(25, 0, 6), v(26, 1, 5), v(27, 1, 1)],
        source: "https://github.com/moby/moby/security/advisories/GHSA-v23v-6jw2-98fq",
    },
    Hole {
        product: "Docker",
        id: "CVE-2026-34040",
        published: "2026-03-31",
        what: "requests with a very large body pass authorization plugins (only where there are any)",
        level: Level::Warning,
        since: None,
        fixed: &[v(29, 3, 1)],
        source: "https://github.com/moby/moby/security/advisories/GHSA-x744-4wpc-v9h2",
    },
    Hole {
        product: "kernel",
        id: "CVE-2022-0847",
        published: "2022-03-07",
        what: "Dirty Pipe: read-only files can be written, the host's runc among them",
        level: Level::Danger,
        since: Some(v(5, 8, 0)),
        fixed: &[v(5, 10, 102), v(5, 15, 25), v(5, 16, 11)],
        source: "https://dirtypipe.cm4all.com",
    },
];

/// A version as far as it can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub numbers: [u32; 3],
    /// The number of the pre-release (`-rc95`, `-rc.2`; 0 for `-beta.1`), or [`RELEASE`].
    pub pre: u32,
    /// Whether somebody else than its makers built it, who may have put the fixes of later versions into it: Debian's
    /// `1.1.5+ds1`, Ubuntu's `5.15.0-105-generic`.
    pub patched: bool,
}

impl Version {
    /// Reads the numbers at the beginning; `None` if there are none.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        let mut numbers = [0; 3];
        let mut parts = digits.split('.').filter(|part| !part.is_empty());
        numbers[0] = parts.next()?.parse().ok()?;
        for (number, part) in numbers[1..].iter_mut().zip(parts) {
            *number = part.parse().ok()?;
        }
        let (pre, built) = pre_release(rest);
        let own = built.is_empty() || built.starts_with("-ce");
        Some(Version { numbers, pre, patched: !own })
    }
}

/// The holes of that version of a product.
pub(super) fn known(product: &str, version: Version) -> impl Iterator<Item = &'static Hole> {
    HOLES.iter().filter(move |hole| hole.product == product && has(hole, (version.numbers, version.pre)))
}

/// The number of the pre-release that a version's end begins with, and what follows it.
fn pre_release(text: &str) -> (u32, &str) {
    let after = |word: &str| text.strip_prefix(['-', '~'])?.strip_prefix(word);
    if let Some(rest) = after("rc") {
        let rest = rest.trim_start_matches(['.', '-']);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, built) = rest.split_at(end);
        return (digits.parse().unwrap_or(0), built);
    }
    match after("beta").or_else(|| after("alpha")) {
        Some(rest) => (0, rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit())),
        None => (RELEASE, text),
    }
}

fn has(hole: &Hole, version: Number) -> bool {
    if hole.since.is_some_and(|since| version < since) {
        return false;
    }
    let branch = |fix: &&Number| fix.0[..2] == version.0[..2];
    match hole.fixed.iter().find(branch) {
        Some(fix) => version < *fix,
        // No fix in this branch: it has the hole if it is older than a branch that needed one.
        None => hole.fixed.last().is_some_and(|last| version < *last),
    }
}
