//! Memory that all requests share. What may need much of it asks first and gives back when it is done, so that the
//! agent's memory does not grow with its callers; and no address has more than a share, so that one can't take
//! all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one permit: few enough that little is lost, and that a count of them fits into 32 bits.
const UNIT: usize = 1024;
/// Addresses that are remembered before those that hold nothing are forgotten.
const ADDRESSES: usize = 1024;

/// A number of bytes, and who holds how many of them.
#[derive(Debug)]
pub struct Budget {
    all: Arc<Semaphore>,
    total: u32,
    share: u32,
    by_address: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// Some bytes of a budget; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    all: OwnedSemaphorePermit,
    /// The same of the address's share; `None` for one that has no share of its own.
    own: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Of `total` bytes, of which one address holds a quarter at most.
    pub fn new(total: usize) -> Arc<Budget> {
        let total = units(total).max(4);
        Arc::new(Budget {
            all: Arc::new(Semaphore::new(total as usize)),
            total,
            share: total / 4,
            by_address: Mutex::default(),
        })
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> usize {
        self.all.available_permits() * UNIT
    }

    /// Takes that many bytes at once, or none. What is larger than a share, or than the budget, takes the
    /// whole of it. `None` as address: one that stands for many and has no share of its own.
    pub fn try_take(self: &Arc<Self>, address: Option<IpAddr>, bytes: usize) -> Option<Held> {
        let wanted = units(bytes);
        let own = match address {
            Some(address) => Some(self.of(address).try_acquire_many_owned(wanted.min(self.share)).ok()?),
            None => None,
        };
        let all = Arc::clone(&self.all).try_acquire_many_owned(wanted.min(self.total)).ok()?;
        Some(Held { budget: Arc::clone(self), all, own })
    }

    /// As [`Budget::try_take`], but waits for its turn. Who waits holds nothing of what others of another
    /// address wait for.
    pub async fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        bytes: usize,
        patience: Duration,
    ) -> Option<Held> {
        let wanted = units(bytes);
        let take = async {
            let own = match address {
                Some(address) => {
                    Some(self.of(address).acquire_many_owned(wanted.min(self.share)).await.ok()?)
                }
                None => None,
            };
            let all = Arc::clone(&self.all).acquire_many_owned(wanted.min(self.total)).await.ok()?;
            Some(Held { budget: Arc::clone(self), all, own })
        };
        tokio::time::timeout(patience, take).await.ok().flatten()
    }

    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        // No step under the lock can stop halfway.
        let mut known = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(&address).and_then(Weak::upgrade) {
            return own;
        }
        if known.len() >= ADDRESSES {
            known.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.share as usize));
        known.insert(address, Arc::downgrade(&own));
        own
    }
}

/// A caller's access to a budget.
#[derive(Debug, Clone)]
pub struct Purse {
    budget: Arc<Budget>,
    address: Option<IpAddr>,
    patience: Duration,
}

impl Purse {
    /// For that address (see [`Budget::try_take`]), which waits so long for its turn.
    pub fn new(budget: Arc<Budget>, address: Option<IpAddr>, patience: Duration) -> Purse {
        Purse { budget, address, patience }
    }

    /// See [`Budget::take`].
    pub async fn take(&self, bytes: usize) -> Option<Held> {
        self.budget.take(self.address, bytes, self.patience).await
    }
}

impl Default for Purse {
    /// Of a large budget that nobody shares.
    fn default() -> Purse {
        Purse::new(Budget::new(1 << 30), None, Duration::from_secs(10))
    }
}

impl Held {
    /// Takes as much more as makes it that many bytes, at once or not at all.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let wanted = units(bytes);
        let more = |held: &OwnedSemaphorePermit, most: u32| {
            let lacking = (wanted.min(most) as usize).saturating_sub(held.num_permits());
            let lacking = u32::try_from(lacking).unwrap_or(u32::MAX);
            Arc::clone(held.semaphore()).try_acquire_many_owned(lacking).ok()
        };
        let own = match &self.own {
            Some(own) => match more(own, self.budget.share) {
                None => return false,
                own => own,
            },
            None => None,
        };
        let Some(all) = more(&self.all, self.budget.total) else { return false };
        self.all.merge(all);
        if let (Some(held), Some(own)) = (&mut self.own, own) {
            held.merge(own);
        }
        true
    }

    /// Gives back all but that many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let keep = units(bytes) as usize;
        for permit in std::iter::once(&mut self.all).chain(self.own.as_mut()) {
            let surplus = permit.num_permits().saturating_sub(keep);
            drop(permit.split(surplus));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const THERE: Option<IpAddr> = Some(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn an_address_has_a_share_and_all_have_the_whole() {
        let budget = Budget::new(16 * UNIT);
        let mut here = budget.try_take(HERE, 3 * UNIT).unwrap();
        assert!(budget.try_take(HERE, 2 * UNIT).is_none(), "beyond its share");
        assert!(here.try_grow(3 * UNIT + 1));
        assert_eq!(budget.free(), 12 * UNIT);
        let mut there = budget.try_take(THERE, 1).expect("another's share");
        assert!(!there.try_grow(100 * UNIT), "there is not so much");
        drop(there);
        let proxy = budget.try_take(None, 12 * UNIT).expect("it has no share of its own");
        assert!(budget.try_take(THERE, 1).is_none(), "nothing is left");
        here.shrink(2 * UNIT - 1);
        assert_eq!(budget.free(), 2 * UNIT);
        assert!(budget.try_take(HERE, 2 * UNIT).is_some());
        drop((here, proxy));
        let mut large = budget.try_take(HERE, 1).unwrap();
        assert!(large.try_grow(100 * UNIT), "what is larger than the budget takes the whole");
        assert_eq!(budget.free(), 0);
        drop(large);
        assert_eq!(budget.free(), 16 * UNIT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_its_turn_or_gives_up() {
        let budget = Budget::new(16 * UNIT);
        let held = budget.take(HERE, 4 * UNIT, PATIENCE).await.unwrap();
        assert!(budget.take(HERE, UNIT, PATIENCE).await.is_none());
        assert!(budget.take(THERE, UNIT, PATIENCE).await.is_some(), "others do not wait for it");
        let next = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(HERE, 4 * UNIT, PATIENCE).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(next.await.unwrap());
        assert_eq!(budget.free(), 16 * UNIT);
    }

    #[test]
    fn addresses_that_hold_nothing_are_forgotten() {
        let budget = Budget::new(1 << 20);
        for n in 0..10_000_u32 {
            budget.try_take(Some(IpAddr::V4(n.into())), 1).unwrap();
        }
        assert!(budget.by_address.lock().unwrap().len() <= ADDRESSES);
    }
}
