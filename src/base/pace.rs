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

/// So often the numbers are looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Waiting for more than one part in so many of the time that it ran is being in somebody's way.
const PATIENCE: u32 = 8;
/// The first pause, and the longest. Two milliseconds of work between pauses of 50 are a twenty-fifth of a core.
const SHORT: Duration = Duration::from_millis(4);
const LONG: Duration = Duration::from_millis(50);

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
        self.pause = after(self.pause, self.last, now);
        self.last = now;
        self.looked = Instant::now();
        self.pause
    }

    /// To be told when a rest is over: it counts as neither work nor waiting.
    pub fn rested(&mut self) {
        self.looked = Instant::now();
    }
}

/// The next pause after one and what came of the work since: twice as long where the thread was in somebody's way, half as
/// long where it was not.
fn after(pause: Duration, last: Counts, now: Counts) -> Duration {
    let ran = now.ran.saturating_sub(last.ran);
    let waited = now.waited.saturating_sub(last.waited);
    if waited > ran / PATIENCE {
        (pause * 2).clamp(SHORT, LONG)
    } else if pause <= SHORT {
        Duration::ZERO
    } else {
        pause / 2
    }
}

impl Counts {
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

    fn counts(ran: u64, waited: u64) -> Counts {
        Counts { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) }
    }

    #[test]
    fn who_is_in_the_way_rests_longer_each_time_and_who_is_not_goes_on() {
        let none = counts(100, 40);
        assert_eq!(after(Duration::ZERO, none, counts(108, 41)), Duration::ZERO, "an eighth is nothing");
        assert_eq!(after(Duration::ZERO, none, counts(108, 42)), SHORT);
        assert_eq!(after(SHORT, none, counts(102, 60)), SHORT * 2);
        assert_eq!(after(LONG, none, counts(102, 60)), LONG, "not for ever");
        assert_eq!(after(LONG, none, counts(102, 40)), LONG / 2);
        assert_eq!(after(SHORT, none, counts(102, 40)), Duration::ZERO);
        assert_eq!(after(Duration::ZERO, none, none), Duration::ZERO);
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
        let mut pace = Pace::here();
        if pace.counts.is_none() {
            assert!(!std::path::Path::new("/proc/thread-self/schedstat").exists());
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < LOOK * 2 {
            std::hint::spin_loop();
        }
        let before = pace.last;
        let _ = pace.rest();
        assert!(pace.last.ran > before.ran, "{pace:?}");
    }
}
