//! Limits of jobs: the defaults, and the most that a controller may ask for.

use std::ops::RangeInclusive;

use super::{Limits, section::Section};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Docker takes 6 MiB, but below this the supervisor does not start reliably; jobs may not ask for less, either.
const MEMORY: RangeInclusive<u64> = 16 * MIB..=TIB;
const CPU: RangeInclusive<f64> = 0.01..=1024.0;
/// The supervisor, the shell and a child.
const PIDS: RangeInclusive<u64> = 4..=4_194_304;
const TIMEOUT: RangeInclusive<u64> = 1..=7 * 86_400;
const TMPFS: RangeInclusive<u64> = 64 * 1024..=TIB;

/// The most of a controller, unless the configuration says so or a default is higher.
const MOST: Limits =
    Limits { cpu: 2.0, memory: 1024 * MIB, pids: 1024, timeout_seconds: 3600, tmpfs: 512 * MIB };

/// The `default_...` keys.
pub(super) fn defaults(top: &mut Section<'_>) -> Limits {
    Limits {
        cpu: top.number("default_cpu_limit", 0.5, CPU),
        memory: top.bytes("default_memory_limit", 256 * MIB, MEMORY),
        pids: top.whole("default_pids_limit", 256, PIDS),
        timeout_seconds: top.seconds("default_timeout_seconds", 300, TIMEOUT),
        tmpfs: top.bytes("default_tmpfs_size", 64 * MIB, TMPFS),
    }
}

/// What a group of maxima starts from where nothing is written: a default is always allowed.
pub(super) fn most(defaults: &Limits) -> Limits {
    Limits {
        cpu: MOST.cpu.max(defaults.cpu),
        memory: MOST.memory.max(defaults.memory),
        pids: MOST.pids.max(defaults.pids),
        timeout_seconds: MOST.timeout_seconds.max(defaults.timeout_seconds),
        tmpfs: MOST.tmpfs.max(defaults.tmpfs),
    }
}

/// A group of maxima. One below the default would refuse every job that does not name the limit.
pub(super) fn maxima(mut section: Section<'_>, base: &Limits, defaults: &Limits) -> Limits {
    let max = Limits {
        cpu: section.number("cpu", base.cpu, CPU),
        memory: section.bytes("memory", base.memory, MEMORY),
        pids: section.whole("pids", base.pids, PIDS),
        timeout_seconds: section.seconds("timeout_seconds", base.timeout_seconds, TIMEOUT),
        tmpfs: section.bytes("tmpfs", base.tmpfs, TMPFS),
    };
    for (key, default, below) in [
        ("cpu", "default_cpu_limit", max.cpu < defaults.cpu),
        ("memory", "default_memory_limit", max.memory < defaults.memory),
        ("pids", "default_pids_limit", max.pids < defaults.pids),
        ("timeout_seconds", "default_timeout_seconds", max.timeout_seconds < defaults.timeout_seconds),
        ("tmpfs", "default_tmpfs_size", max.tmpfs < defaults.tmpfs),
    ] {
        // What comes from `max_limits` was said there.
        if below && section.given(key) {
            section.fault(key, format!("is below `{default}`: raise this one or lower that one"));
        }
    }
    section.finish();
    max
}
