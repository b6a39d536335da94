//! Wall-clock time, as a value. Rooms that decide by time take it as a parameter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A moment: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The host's clock, now.
    pub fn now() -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(since.as_nanos().try_into().unwrap_or(i64::MAX)),
            Err(before) => Timestamp(-i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// From whole Unix seconds; saturates outside the years 1677 to 2262.
    pub fn from_secs(secs: i64) -> Timestamp {
        Timestamp(secs.saturating_mul(1_000_000_000))
    }

    /// Whole Unix seconds, rounded down.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Unix milliseconds, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// RFC 3339 in UTC with as many digits of fraction as there are.
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0))
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
    }

    /// Time since an earlier moment; zero if that moment is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment and a duration more.
    #[must_use]
    pub fn plus(self, more: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(more.as_nanos()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_down_and_text_has_the_fraction() {
        let at = Timestamp(1_704_628_800_500_000_000);
        assert_eq!(at.secs(), 1_704_628_800);
        assert_eq!(at.rfc3339(), "2024-01-07T12:00:00.5Z");
        assert_eq!(Timestamp(-1).secs(), -1);
        assert_eq!(at.since(Timestamp::from_secs(1_704_628_800)), Duration::from_millis(500));
        assert_eq!(Timestamp(0).since(at), Duration::ZERO);
    }
}
