//! Wall-clock time, as a value. Rooms that decide by time take it as a parameter.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A moment: nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The host's clock, now.
    pub fn now() -> Timestamp {
        let host = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(since.as_nanos().try_into().unwrap_or(i64::MAX)),
            Err(before) => Timestamp(-i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX)),
        };
        #[cfg(feature = "failpoints")]
        let host = Timestamp(host.0.saturating_add(jump::nanos()));
        host
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

/// A clock for what can't be taken back, as retention is. It goes back with the wall clock at once, and forward at most
/// twice as fast as time passes: a wall clock that jumps by an hour makes nothing an hour older in a moment, and one
/// that was set right is caught up with. The moment that it is made with is believed.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    wall: Timestamp,
    at: Instant,
}

impl Steady {
    /// Both clocks as they are now.
    pub fn new(wall: Timestamp, at: Instant) -> Steady {
        Steady { wall, at }
    }

    /// The time to go by, where the two clocks say this.
    pub fn now(&mut self, wall: Timestamp, at: Instant) -> Timestamp {
        let most = self.wall.plus(2 * at.saturating_duration_since(self.at));
        *self = Steady { wall: wall.min(most), at };
        self.wall
    }
}

/// A wall clock that a test lets jump, of this process alone.
#[cfg(feature = "failpoints")]
mod jump {
    use std::{path::PathBuf, sync::OnceLock};

    /// By how much, now: `QUICKCMD_CLOCK_JUMP` names a file with seconds in it; none is none.
    pub(super) fn nanos() -> i64 {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("QUICKCMD_CLOCK_JUMP").map(PathBuf::from));
        let Some(file) = file else { return 0 };
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.trim().parse::<i64>().unwrap_or(0).saturating_mul(1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_taken_back_follows_no_jump_forward() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (mut wall, mut at) = (Timestamp::from_secs(1_704_628_800), Instant::now());
        let mut steady = Steady::new(wall, at);
        let mut passes = |wall: &mut Timestamp, time| {
            (*wall, at) = (wall.plus(time), at + time);
            steady.now(*wall, at)
        };
        assert_eq!(passes(&mut wall, HOUR), wall, "time that passes is time");
        wall = wall.plus(HOUR);
        let minute = Duration::from_secs(60);
        let seen = passes(&mut wall, minute);
        assert_eq!(wall.since(seen), HOUR - minute, "a jump is caught up with as slowly as time passes");
        wall = Timestamp(wall.0 - i64::try_from(HOUR.as_nanos()).unwrap());
        assert_eq!(passes(&mut wall, minute), wall, "and forgotten when the clock is set back");
        wall = Timestamp(wall.0 - i64::try_from(HOUR.as_nanos()).unwrap());
        assert_eq!(passes(&mut wall, minute), wall, "a jump back makes nothing older");
        wall = wall.plus(HOUR);
        passes(&mut wall, HOUR);
        assert_eq!(passes(&mut wall, minute), wall, "a clock that was set right is believed after as long");
    }

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
