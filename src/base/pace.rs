//! How fast somebody may go who must hold up nobody. A thread's priority counts only among its own group of processes
//! (a session's, a service's), so among itself and a container it says nothing: what says whether others want the
//! processor, whoever they are, is how long the thread itself had to wait for it. The kernel counts that for each thread
//! (`/proc/thread-self/schedstat`: nanoseconds on the processor, nanoseconds ready and waiting; Linux's
//! `Documentation/scheduler/sched-stats.rst`).

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

/// So often the numbers are looked at, and so much must there be between two of them to tell anything: a thread that is
/// woken for a moment waits for the processor to wake up, and not for somebody else.
const LOOK: Duration = Duration::from_millis(2);
/// Waiting for less is chance.
const CHANCE: Duration = Duration::from_micros(500);
/// Waiting for more than one part in so many of the time that it ran is being in somebody's way.
const PATIENCE: u32 = 8;
/// The first pause, and the longest. Two milliseconds of work between pauses of 100 are a fiftieth of a core.
const SHORT: Duration = Duration::from_millis(4);
const LONG: Duration = Duration::from_millis(100);

/// Of one thread; stays on it.
#[derive(Debug)]
pub struct Pace {
    /// `None` where the kernel does not count: then there are no pauses.
    counts: Option<File>,
    looked: Instant,
    last: Counts,
    pause: Duration,
}

/// What the kernel has counted of a thread since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    ran: Duration,
    waited: Duration,
}

impl Pace {
    /// The calling thread's.
    pub fn here() -> Pace {
        let counts = File::open("/proc/thread-self/schedstat").ok();
        let last = counts.as_ref().and_then(Counts::read).unwrap_or_default();
        Pace { counts, looked: Instant::now(), last, pause: Duration::ZERO }
    }

    /// How long to rest now, before more work is begun. To be called often; nearly always nothing.
    pub fn rest(&mut self) -> Duration {
        if self.looked.elapsed() < LOOK {
            return Duration::ZERO;
        }
        let Some(now) = self.counts.as_ref().and_then(Counts::read) else { return Duration::ZERO };
        self.looked = Instant::now();
        let (ran, waited) = now.since(self.last);
        if ran + waited < LOOK {
            return Duration::ZERO;
        }
        self.last = now;
        self.pause = after(self.pause, ran, waited);
        self.pause
    }
}

/// The next pause after one and what came of the work since: twice as long where the thread was in somebody's way, half as
/// long where it was not.
fn after(pause: Duration, ran: Duration, waited: Duration) -> Duration {
    if waited > (ran / PATIENCE).max(CHANCE) {
        (pause * 2).clamp(SHORT, LONG)
    } else if pause <= SHORT {
        Duration::ZERO
    } else {
        pause / 2
    }
}

impl Counts {
    /// How long it has run, and waited, since then.
    fn since(self, last: Counts) -> (Duration, Duration) {
        (self.ran.saturating_sub(last.ran), self.waited.saturating_sub(last.waited))
    }

    fn read(file: &File) -> Option<Counts> {
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).ok()?;
        Counts::parse(std::str::from_utf8(text.get(..length)?).ok()?)
    }

    fn parse(text: &str) -> Option<Counts> {
        let mut numbers = text.split_whitespace().map(|number| number.parse().ok().map(Duration::from_nanos));
        Some(Counts { ran: numbers.next()??, waited: numbers.next()?? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_way_rests_longer_each_time_and_who_is_not_goes_on() {
        let after = |pause, ran, waited| {
            super::after(pause, Duration::from_micros(ran), Duration::from_micros(waited))
        };
        assert_eq!(after(Duration::ZERO, 8_000, 1_000), Duration::ZERO, "an eighth is nothing");
        assert_eq!(after(Duration::ZERO, 8_000, 1_001), SHORT);
        assert_eq!(after(Duration::ZERO, 1_600, 500), Duration::ZERO, "nor is half of a millisecond");
        assert_eq!(after(SHORT, 2_000, 20_000), SHORT * 2);
        assert_eq!(after(LONG, 2_000, 20_000), LONG, "not for ever");
        assert_eq!(after(LONG, 2_000, 0), LONG / 2);
        assert_eq!(after(SHORT, 2_000, 0), Duration::ZERO);
    }

    #[test]
    fn the_kernels_line_is_understood() {
        assert_eq!(
            Counts::parse("1539337 7651388 3\n"),
            Some(Counts { ran: Duration::from_nanos(1_539_337), waited: Duration::from_nanos(7_651_388) })
        );
        for wrong in ["", "1", "x 2 3"] {
            assert_eq!(Counts::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_threads_own_work_is_counted() {
        let begun = Instant::now();
        let Ok(counts) = File::open("/proc/thread-self/schedstat") else { return };
        let before = Counts::read(&counts).unwrap();
        if before == Counts::default() {
            // A kernel that was told not to count.
            return;
        }
        // It may write down only at its next tick what a thread has used.
        while Counts::read(&counts).unwrap().since(before).0.is_zero() {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::hint::spin_loop();
        }
    }

    #[test]
    fn short_work_now_and_then_is_added_up_before_it_is_judged() {
        let mut pace = Pace::here();
        pace.last = Counts { ran: Duration::MAX, waited: Duration::MAX };
        pace.looked = Instant::now().checked_sub(LOOK * 2).unwrap();
        assert_eq!(pace.rest(), Duration::ZERO);
        assert_eq!(pace.last.ran, Duration::MAX, "nothing was used up");
    }
}
