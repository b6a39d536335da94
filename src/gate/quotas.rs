//! What controllers have used of a day's quota. State, but no I/O: the record has the same numbers, and what is
//! counted here is read from it at the start. A day is one of UTC, by the clock that is a parameter.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    base::clock::Timestamp,
    config::Daily,
    wire::{Code, Problem},
};

/// Seconds of a day of UTC.
const DAY: i64 = 86_400;
/// Days that are remembered: jobs may end around midnight, and the clock may be set.
const DAYS: usize = 3;

/// What jobs have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    pub cpu_ms: u64,
    pub output_bytes: u64,
}

/// What every controller has used, by day. Only controllers of the configuration have jobs, so memory is bounded by
/// their number.
#[derive(Debug, Default)]
pub struct Quotas {
    days: Mutex<BTreeMap<i64, HashMap<String, Used>>>,
}

/// The day of a moment, counted from 1970-01-01.
pub fn day(at: Timestamp) -> i64 {
    at.secs().div_euclid(DAY)
}

impl Quotas {
    /// Counts what a job has used on the day of its end.
    pub fn add(&self, controller: &str, used: Used, day: i64) {
        let mut days = self.days();
        let today = days.entry(day).or_default();
        let sum = today.entry(controller.to_owned()).or_default();
        sum.cpu_ms = sum.cpu_ms.saturating_add(used.cpu_ms);
        sum.output_bytes = sum.output_bytes.saturating_add(used.output_bytes);
        while days.len() > DAYS {
            days.pop_first();
        }
    }

    /// Whether the controller has something left of this day. What a job uses counts when it has ended, so that
    /// jobs which run at the same time may go beyond it together.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED`, naming the limit, and when the next day begins.
    pub fn check(&self, controller: &str, daily: Daily, now: Timestamp) -> Result<(), Problem> {
        if daily == Daily::default() {
            return Ok(());
        }
        let used =
            self.days().get(&day(now)).and_then(|day| day.get(controller)).copied().unwrap_or_default();
        let limits = [
            ("daily.cpu_seconds", "seconds of CPU", used.cpu_ms / 1000, daily.cpu_seconds),
            ("daily.output", "bytes of output", used.output_bytes, daily.output_bytes),
        ];
        for (limit, unit, used, maximum) in limits {
            let Some(maximum) = maximum.filter(|maximum| used >= *maximum) else { continue };
            let left = (day(now) + 1) * DAY - now.secs();
            return Err(Problem::new(Code::QuotaExceeded)
                .details(format!(
                    "jobs of controller {controller:?} have used {used} {unit} today (UTC) and may use {maximum}; \
                     try again in {left} s"
                ))
                .with("limit", limit)
                .with("used", used)
                .with("maximum", maximum)
                .retry_after(u32::try_from(left).unwrap_or(1)));
        }
        Ok(())
    }

    fn days(&self) -> MutexGuard<'_, BTreeMap<i64, HashMap<String, Used>>> {
        // Each change is one sum: a panic leaves nothing half done.
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_704_628_800 * 1_000_000_000);
    const BOTH: Daily = Daily { cpu_seconds: Some(10), output_bytes: Some(1000) };

    fn used(cpu_ms: u64, output_bytes: u64) -> Used {
        Used { cpu_ms, output_bytes }
    }

    #[test]
    fn a_quota_is_used_up_exactly_at_its_limit() {
        let quotas = Quotas::default();
        quotas.add("a", used(9_999, 999), day(NOON));
        assert_eq!(quotas.check("a", BOTH, NOON), Ok(()));
        quotas.add("a", used(1, 0), day(NOON));
        let problem = quotas.check("a", BOTH, NOON).unwrap_err();
        insta::assert_json_snapshot!(problem, @r#"
        {
          "error": "Daily quota used up",
          "code": "QUOTA_EXCEEDED",
          "details": "jobs of controller \"a\" have used 10 seconds of CPU today (UTC) and may use 10; try again in 43200 s",
          "limit": "daily.cpu_seconds",
          "maximum": 10,
          "used": 10
        }
        "#);
        assert_eq!(problem.retry_after, Some(43_200), "until midnight");
        assert_eq!(quotas.check("b", BOTH, NOON), Ok(()), "another controller has its own");
        assert_eq!(quotas.check("a", Daily::default(), NOON), Ok(()), "without a quota nothing is used up");

        quotas.add("b", used(0, 999), day(NOON));
        assert_eq!(quotas.check("b", BOTH, NOON), Ok(()));
        quotas.add("b", used(0, 1), day(NOON));
        let problem = quotas.check("b", BOTH, NOON).unwrap_err();
        assert_eq!(problem.more["limit"], "daily.output");
        assert_eq!(
            problem.details.unwrap(),
            "jobs of controller \"b\" have used 1000 bytes of output today (UTC) and may use 1000; try again in 43200 s"
        );
    }

    #[test]
    fn the_next_day_begins_with_nothing_used() {
        let quotas = Quotas::default();
        quotas.add("a", used(10_000, 0), day(NOON));
        let last = Timestamp::from_secs(1_704_671_999);
        assert_eq!(quotas.check("a", BOTH, last).unwrap_err().retry_after, Some(1));
        let midnight = Timestamp::from_secs(1_704_672_000);
        assert_eq!(quotas.check("a", BOTH, midnight), Ok(()));
        // A job that ended before midnight and is recorded after it counts for the day before.
        quotas.add("a", used(10_000, 0), day(last));
        assert_eq!(quotas.check("a", BOTH, midnight), Ok(()));
        // A clock that was ahead for a moment has not made the day forgotten.
        quotas.add("a", used(1, 1), day(NOON) + 30);
        assert!(quotas.check("a", BOTH, NOON).is_err());
    }

    #[test]
    fn days_long_gone_are_forgotten() {
        let quotas = Quotas::default();
        for day in 0..100 {
            quotas.add("a", used(1, 1), day);
        }
        assert_eq!(quotas.days().len(), DAYS);
    }
}
