//! Token buckets: how often one controller or one address may come. State, but no I/O; `now` is a
//! parameter.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::config::Rate;

const SHARDS: usize = 16;

/// Buckets by key: a controller's id, or an address as text. Memory is bounded: when a shard is full, the
/// buckets that are full again go (they are as good as new), and if none is, the one that was used longest ago.
#[derive(Debug)]
pub struct Rates {
    shards: Vec<Mutex<HashMap<String, Bucket>>>,
    hasher: RandomState,
    per_shard: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// When it will be full again if nobody comes.
    full_at: Instant,
}

impl Rates {
    /// Room for about `keys` keys.
    pub fn new(keys: usize) -> Rates {
        Rates {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            per_shard: keys.div_ceil(SHARDS).max(1),
        }
    }

    /// Takes one token of the key's bucket.
    ///
    /// # Errors
    /// There is none: whole seconds until there will be one, at least 1, for `Retry-After`.
    pub fn take(&self, key: &str, rate: Rate, now: Instant) -> Result<(), u32> {
        if rate.per_second <= 0.0 || !rate.per_second.is_finite() {
            return Ok(());
        }
        let burst = f64::from(rate.burst.max(1));
        let mut shard = self.shard(key);
        let tokens = match shard.get(key) {
            Some(bucket) => {
                let flowed = now.saturating_duration_since(bucket.at).as_secs_f64() * rate.per_second;
                (bucket.tokens + flowed).min(burst)
            }
            None => {
                if shard.len() >= self.per_shard {
                    make_room(&mut shard, now);
                }
                burst
            }
        };
        // A thousandth of grace: a caller that waits exactly as long as it was told must get through.
        let (left, answer) = if tokens >= 0.999 {
            ((tokens - 1.0).max(0.0), Ok(()))
        } else {
            (tokens, Err(whole_seconds((1.0 - tokens) / rate.per_second)))
        };
        let full_at = now + Duration::from_secs(whole_seconds((burst - left) / rate.per_second).into());
        let at = shard.get(key).map_or(now, |bucket| bucket.at.max(now));
        let bucket = Bucket { tokens: left, at, full_at };
        match shard.get_mut(key) {
            Some(known) => *known = bucket,
            None => drop(shard.insert(key.to_owned(), bucket)),
        }
        answer
    }

    /// How many keys are remembered now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, HashMap<String, Bucket>> {
        let at = self.hasher.hash_one(key) % (SHARDS as u64);
        let shard = &self.shards[usize::try_from(at).unwrap_or(0)];
        // What a panic may leave behind is a bucket with an old count: no reason to stop serving.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(shard: &mut HashMap<String, Bucket>, now: Instant) {
    let before = shard.len();
    shard.retain(|_, bucket| bucket.full_at > now);
    if shard.len() == before
        && let Some(oldest) = shard.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| key.clone())
    {
        shard.remove(&oldest);
    }
}

/// Rounded up, 1 at least, one day at most.
fn whole_seconds(seconds: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=86400")]
    let whole = seconds.ceil().clamp(1.0, 86_400.0) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_A_SECOND: Rate = Rate { per_second: 2.0, burst: 3 };

    #[test]
    fn a_burst_passes_then_the_flow_counts() {
        let rates = Rates::new(100);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.take("a", TWO_A_SECOND, start), Ok(()));
        }
        assert_eq!(rates.take("a", TWO_A_SECOND, start), Err(1));
        assert_eq!(rates.take("b", TWO_A_SECOND, start), Ok(()), "another key has its own bucket");
        assert_eq!(rates.take("a", TWO_A_SECOND, start + Duration::from_millis(500)), Ok(()));
        assert_eq!(rates.take("a", TWO_A_SECOND, start + Duration::from_millis(600)), Err(1));
        for _ in 0..3 {
            assert_eq!(rates.take("a", TWO_A_SECOND, start + Duration::from_secs(60)), Ok(()));
        }
        assert!(
            rates.take("a", TWO_A_SECOND, start + Duration::from_secs(60)).is_err(),
            "no more than the burst"
        );
    }

    #[test]
    fn who_waits_as_told_gets_through() {
        let slow = Rate { per_second: 1.0 / 7.0, burst: 1 };
        let rates = Rates::new(100);
        let mut now = Instant::now();
        for _ in 0..50 {
            assert_eq!(rates.take("a", slow, now), Ok(()));
            let wait = rates.take("a", slow, now).unwrap_err();
            assert_eq!(wait, 7);
            now += Duration::from_secs(wait.into());
        }
    }

    #[test]
    fn no_rate_means_no_limit_and_nothing_kept() {
        let rates = Rates::new(100);
        for _ in 0..1000 {
            assert_eq!(rates.take("a", Rate { per_second: 0.0, burst: 0 }, Instant::now()), Ok(()));
        }
        assert!(rates.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_busy_are_remembered() {
        let rates = Rates::new(160);
        let start = Instant::now();
        let rate = Rate { per_second: 0.001, burst: 1 };
        for i in 0..10_000_u64 {
            let now = start + Duration::from_millis(i);
            let _ = rates.take(&format!("10.0.{}.{}", i / 256, i % 256), rate, now);
            if i % 5 == 0 {
                assert_eq!(rates.take("busy", rate, now).is_ok(), i == 0, "forgotten at {i}");
            }
        }
        assert!(rates.len() <= 160, "{}", rates.len());
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let rates = Rates::new(100);
        let later = Instant::now() + Duration::from_secs(100);
        let rate = Rate { per_second: 1.0, burst: 1 };
        assert_eq!(rates.take("a", rate, later), Ok(()));
        assert!(rates.take("a", rate, later - Duration::from_secs(50)).is_err());
        assert!(rates.take("a", rate, later).is_err());
    }
}
