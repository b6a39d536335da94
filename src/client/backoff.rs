//! Waits between tries: doubling, with jitter so that many controllers don't come back as one.

use std::time::Duration;

use super::Retry;

#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(retry: &Retry) -> Backoff {
        Backoff { first: retry.first, longest: retry.longest, next: retry.first }
    }

    /// The next wait: between half of the present step and all of it.
    pub fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        let mut random = [0; 2];
        // Without randomness the wait is merely a little less spread.
        let _ = getrandom::fill(&mut random);
        step / 2 + step.mul_f64(f64::from(u16::from_le_bytes(random)) / 65_536.0 / 2.0)
    }

    /// After a success the next trouble starts small again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew() {
        let retry = Retry {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(350),
            ..Retry::default()
        };
        let mut backoff = Backoff::new(&retry);
        for step in [100, 200, 350, 350] {
            let wait = backoff.next();
            assert!(
                wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step),
                "{wait:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
