//! What the pool should hold: pure, with `now` as a parameter. Knows shapes, counts and ages; starts nothing.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{config::PoolConfig, sandbox::Shape, wire::payload::Network};

/// Askings within this time say how many of a shape should wait.
const DEMAND: Duration = Duration::from_secs(60);
/// A shape that nobody has asked for in this time is no longer kept.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// What one waiting sandbox is charged against the pool's memory, in bytes. With Docker 20.10 it costs about 4 MiB:
/// 3.7 MiB of the container's shim (its `Pss`) and 0.4 MiB of its memory cgroup, the supervisor included; the
/// daemon's own part is not seen, hence the double. The job's limit is not what counts: nothing of it is used yet.
const WAITING_COST: u64 = 8 << 20;

/// What must be equal for a waiting sandbox to serve a job. The timeout is not in it: the supervisor is
/// told that with the job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    reference: String,
    image_id: String,
    cpu: u64,
    memory: u64,
    pids: u64,
    tmpfs: u64,
    network: Network,
    class: String,
}

impl Key {
    fn of(shape: &Shape) -> Key {
        Key {
            // The runtime is chosen by it.
            reference: shape.image.reference.clone(),
            image_id: shape.image.id.clone(),
            cpu: shape.limits.cpu.to_bits(),
            memory: shape.limits.memory,
            pids: shape.limits.pids,
            tmpfs: shape.limits.tmpfs,
            network: shape.network,
            class: shape.class.clone(),
        }
    }
}

struct Shelf<T> {
    shape: Shape,
    waiting: VecDeque<(Instant, T)>,
    asked: VecDeque<Instant>,
    /// Being started now.
    coming: usize,
    /// With jobs, and may come back.
    lent: usize,
    /// The most that were lent at once lately: so many are enough. Of sandboxes that are used once it is the askings that
    /// count.
    peak: Option<(Instant, usize)>,
}

impl<T> Shelf<T> {
    /// What counts against the number that is wanted.
    fn held(&self) -> usize {
        self.waiting.len() + self.coming + self.lent
    }
}

/// The pool's content and what it is to become. `T`: a waiting sandbox.
pub(super) struct Plan<T> {
    config: PoolConfig,
    shelves: HashMap<Key, Shelf<T>>,
    default: Option<Key>,
}

impl<T> Plan<T> {
    pub(super) fn new(config: PoolConfig) -> Plan<T> {
        Plan { config, shelves: HashMap::new(), default: None }
    }

    fn shelf(&mut self, shape: &Shape) -> &mut Shelf<T> {
        self.shelves.entry(Key::of(shape)).or_insert_with(|| Shelf {
            shape: shape.clone(),
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            coming: 0,
            lent: 0,
            peak: None,
        })
    }

    /// From now on the standing number is kept of this shape.
    pub(super) fn want_default(&mut self, shape: &Shape) {
        self.shelf(shape);
        self.default = Some(Key::of(shape));
    }

    /// A job asks for this shape: gives the oldest that waits, and remembers the asking.
    pub(super) fn take(&mut self, shape: &Shape, now: Instant) -> Option<T> {
        if self.config.max == 0 {
            return None;
        }
        // The reference has moved: what waits with the older image is of no use (`surplus` throws it out).
        if let Some(default) = &self.default
            && default.reference == shape.image.reference
            && default.image_id != shape.image.id
            && let Some(shelf) = self.shelves.get(default)
        {
            let moved = Shape { image: shape.image.clone(), ..shelf.shape.clone() };
            self.want_default(&moved);
        }
        let max = self.config.max;
        let shelf = self.shelf(shape);
        shelf.asked.push_back(now);
        while shelf.asked.len() > max {
            shelf.asked.pop_front();
        }
        shelf.waiting.pop_front().map(|(_, waiting)| waiting)
    }

    /// For a shape that nothing waits for: the oldest of those that differ from it only in what Docker can change
    /// of a running container (cores, memory, processes).
    pub(super) fn take_alike(&mut self, shape: &Shape) -> Option<T> {
        let wanted = Key::of(shape);
        self.shelves
            .iter_mut()
            .filter(|(key, _)| {
                let Key { cpu, memory, pids, .. } = wanted;
                Key { cpu, memory, pids, ..(*key).clone() } == wanted
            })
            .filter_map(|(_, shelf)| Some((shelf.waiting.front()?.0, shelf)))
            .min_by_key(|(since, _)| *since)
            .and_then(|(_, shelf)| shelf.waiting.pop_front())
            .map(|(_, waiting)| waiting)
    }

    /// The shape that one more should be started of (see `lacks`), which counts as coming from now on: `put` or
    /// `forget` follows.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Shape> {
        let shape = self.lacks(now)?;
        self.shelf(&shape).coming += 1;
        Some(shape)
    }

    /// One that was started for this shape waits now.
    pub(super) fn put(&mut self, shape: &Shape, waiting: T, now: Instant) {
        let shelf = self.shelf(shape);
        shelf.coming = shelf.coming.saturating_sub(1);
        shelf.waiting.push_back((now, waiting));
    }

    /// A job has one of this shape that may come back.
    pub(super) fn lend(&mut self, shape: &Shape, now: Instant) {
        let shelf = self.shelf(shape);
        shelf.lent += 1;
        let higher = |(at, peak)| shelf.lent >= peak || now.saturating_duration_since(at) >= DEMAND;
        if shelf.peak.is_none_or(higher) {
            shelf.peak = Some((now, shelf.lent));
        }
    }

    /// A job has its own no more, whatever became of it.
    pub(super) fn returned(&mut self, shape: &Shape) {
        if let Some(shelf) = self.shelves.get_mut(&Key::of(shape)) {
            shelf.lent = shelf.lent.saturating_sub(1);
        }
    }

    /// One that a job of this shape had waits again, if there is place and it is not too old; `born`: its age counts
    /// from its start. One that is never seen to wait would live for ever otherwise.
    pub(super) fn give_back(&mut self, shape: &Shape, waiting: T, born: Instant) -> Option<T> {
        if !self.has_place(self.depth()) || born.elapsed() >= self.config.max_age {
            return Some(waiting);
        }
        self.shelf(shape).waiting.push_back((born, waiting));
        None
    }

    /// Whether one more may wait where there are so many.
    fn has_place(&self, held: usize) -> bool {
        let memory = (held as u64 + 1).saturating_mul(WAITING_COST);
        held < self.config.max && memory <= self.config.max_memory
    }

    /// Nobody gets this shape any more until it is asked for again: it could not be started.
    pub(super) fn forget(&mut self, shape: &Shape) {
        if let Some(shelf) = self.shelves.get_mut(&Key::of(shape)) {
            shelf.coming = shelf.coming.saturating_sub(1);
            shelf.asked.clear();
            shelf.peak = None;
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.shelves.values().map(|shelf| shelf.waiting.len()).sum()
    }

    /// How many of that shelf should wait.
    fn wanted(&self, key: &Key, shelf: &Shelf<T>, now: Instant) -> usize {
        let moved = self.shelves.iter().any(|(other, newer)| {
            other.reference == key.reference
                && other.image_id != key.image_id
                && newer.asked.back() > shelf.asked.back()
        });
        let standing = if self.default.as_ref() == Some(key) { self.config.size } else { 0 };
        if moved && standing == 0 {
            return 0;
        }
        let lately = |time: Duration| {
            shelf.asked.iter().filter(|asked| now.saturating_duration_since(**asked) < time).count()
        };
        let demand = match shelf.peak.map(|(at, peak)| (now.saturating_duration_since(at), peak)) {
            Some((ago, peak)) if ago < DEMAND => peak,
            Some((ago, _)) => usize::from(ago < FORGOTTEN),
            None if lately(FORGOTTEN) > 0 => lately(DEMAND).max(1),
            None => 0,
        };
        standing.max(demand).min(self.config.max)
    }

    /// Takes out what is too old, too many, or no longer `good`; to be thrown away.
    pub(super) fn surplus(&mut self, now: Instant, good: impl Fn(&T) -> bool) -> Vec<T> {
        let wanted: HashMap<Key, usize> =
            self.shelves.iter().map(|(key, shelf)| (key.clone(), self.wanted(key, shelf, now))).collect();
        let mut out = Vec::new();
        for (key, shelf) in &mut self.shelves {
            let mut kept = VecDeque::new();
            for (since, waiting) in shelf.waiting.drain(..) {
                let young = now.saturating_duration_since(since) < self.config.max_age;
                if young && good(&waiting) && kept.len() < wanted[key] {
                    kept.push_back((since, waiting));
                } else {
                    out.push(waiting);
                }
            }
            shelf.waiting = kept;
        }
        let default = self.default.clone();
        self.shelves
            .retain(|key, shelf| shelf.held() > 0 || wanted[key] > 0 || default.as_ref() == Some(key));
        out
    }

    /// Takes out what waits for a class that is none any more, and wants nothing for it: what its jobs have is surplus
    /// when it comes back. The empty class is everybody's.
    pub(super) fn retire(&mut self, known: &dyn Fn(&str) -> bool) -> Vec<T> {
        let gone = |key: &Key, _: &mut Shelf<T>| !key.class.is_empty() && !known(&key.class);
        self.shelves
            .extract_if(gone)
            .flat_map(|(_, shelf)| shelf.waiting)
            .map(|(_, waiting)| waiting)
            .collect()
    }

    /// Takes out everything.
    pub(super) fn empty(&mut self) -> Vec<T> {
        self.default = None;
        self.shelves.drain().flat_map(|(_, shelf)| shelf.waiting).map(|(_, waiting)| waiting).collect()
    }

    /// The shape that one more should be started of: the default's first, then what lacks most, within the
    /// bounds of number and memory.
    fn lacks(&self, now: Instant) -> Option<Shape> {
        let held = self.depth() + self.shelves.values().map(|shelf| shelf.coming).sum::<usize>();
        if !self.has_place(held) {
            return None;
        }
        self.shelves
            .iter()
            .map(|(key, shelf)| (key, shelf, self.wanted(key, shelf, now).saturating_sub(shelf.held())))
            .filter(|(_, _, lack)| *lack > 0)
            .max_by_key(|(key, _, lack)| (self.default.as_ref() == Some(*key), *lack))
            .map(|(_, shelf, _)| shelf.shape.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::shape;

    const MIB: u64 = 1 << 20;

    fn plan(size: usize, max: usize, max_memory: u64) -> Plan<u32> {
        Plan::new(PoolConfig { size, max, max_memory, max_age: Duration::from_secs(600) })
    }

    /// Starts what lacks until nothing does; how many.
    fn fill(plan: &mut Plan<u32>, now: Instant) -> usize {
        let mut started = 0;
        while let Some(shape) = plan.begin(now) {
            plan.put(&shape, 0, now);
            started += 1;
            assert!(started < 100, "it never has enough");
        }
        started
    }

    #[test]
    fn the_default_is_kept_and_demand_comes_and_goes() {
        let now = Instant::now();
        let mut plan = plan(2, 10, 10_000 * MIB);
        assert_eq!(plan.lacks(now), None, "nothing is known yet");
        plan.want_default(&shape("a"));
        assert_eq!(fill(&mut plan, now), 2);

        let other = Shape { class: "other".to_owned(), ..shape("a") };
        for _ in 0..3 {
            assert_eq!(plan.take(&other, now), None, "another class never gets it");
        }
        assert_eq!(fill(&mut plan, now), 3);
        assert!(plan.take(&other, now).is_some());

        let later = now + DEMAND;
        assert_eq!(plan.surplus(later, |_| true).len(), 1, "one is kept for a while");
        assert_eq!(plan.surplus(now + FORGOTTEN, |_| true).len(), 1);
        assert_eq!(plan.depth(), 2, "the default's stay");
    }

    #[test]
    fn one_of_other_limits_serves_where_docker_can_change_them() {
        let now = Instant::now();
        let mut plan = plan(1, 10, 10_000 * MIB);
        plan.want_default(&shape("a"));
        plan.put(&shape("a"), 7, now);
        let with = |change: fn(&mut Shape)| {
            let mut shape = shape("a");
            change(&mut shape);
            shape
        };
        for other in [
            with(|shape| shape.limits.tmpfs += 1),
            with(|shape| shape.network = Network::Bridge),
            with(|shape| shape.class.push('x')),
            with(|shape| shape.image.id.push('x')),
            with(|shape| shape.image.reference.push('x')),
        ] {
            assert_eq!(plan.take_alike(&other), None, "{other:?}");
        }
        let alike = with(|shape| {
            shape.limits.cpu += 0.25;
            shape.limits.memory += MIB;
            shape.limits.pids += 1;
        });
        assert_eq!(plan.take(&alike, now), None, "it does not wait");
        assert_eq!(plan.take_alike(&alike), Some(7));
        assert_eq!(plan.take_alike(&alike), None, "it was the only one");
    }

    #[test]
    fn number_and_memory_are_bounds_and_zero_is_off() {
        let now = Instant::now();
        let mut few = plan(5, 3, 10_000 * MIB);
        few.want_default(&shape("a"));
        assert_eq!(fill(&mut few, now), 3);

        let mut small = plan(5, 5, 2 * WAITING_COST + MIB);
        small.want_default(&shape("a"));
        assert_eq!(fill(&mut small, now), 2, "whatever the limits of the jobs to come");

        let mut off = plan(5, 0, 10_000 * MIB);
        off.want_default(&shape("a"));
        assert_eq!(off.take(&shape("a"), now), None);
        assert_eq!(fill(&mut off, now), 0);
    }

    #[test]
    fn what_is_being_started_counts_until_it_waits_or_fails() {
        let now = Instant::now();
        let mut plan = plan(3, 3, 10_000 * MIB);
        plan.want_default(&shape("a"));
        for _ in 0..3 {
            assert_eq!(plan.begin(now), Some(shape("a")));
        }
        assert_eq!(plan.begin(now), None, "three are on their way");
        plan.put(&shape("a"), 1, now);
        assert_eq!(plan.begin(now), None, "one waits, two are on their way");
        plan.forget(&shape("a"));
        assert_eq!(plan.begin(now), Some(shape("a")), "one could not be started");
        assert_eq!(plan.depth(), 1);

        // Nobody wants the shape any more while one of it is on its way: it is thrown away when it comes.
        let other = Shape { class: "other".to_owned(), ..shape("a") };
        let mut plan = Plan::new(PoolConfig {
            size: 0,
            max: 2,
            max_memory: 10_000 * MIB,
            max_age: Duration::from_secs(600),
        });
        assert_eq!(plan.take(&other, now), None);
        assert_eq!(plan.begin(now), Some(other.clone()));
        let later = now + FORGOTTEN;
        assert!(plan.surplus(later, |_| true).is_empty());
        plan.put(&other, 9, later);
        assert_eq!(plan.surplus(later, |_| true), [9]);
    }

    #[test]
    fn what_a_job_has_and_may_give_back_counts_as_there() {
        let now = Instant::now();
        let mut plan = plan(0, 2, 10_000 * MIB);
        let own = Shape { class: "own".to_owned(), reuse: 9, ..shape("a") };
        for _ in 0..2 {
            plan.lend(&own, now);
            assert_eq!(plan.take(&own, now), None);
        }
        assert_eq!(plan.begin(now), None, "both will come back");
        assert_eq!(plan.give_back(&own, 1, now), None);
        plan.returned(&own);
        plan.returned(&own);
        assert_eq!(plan.begin(now), Some(own.clone()), "one did not");
        plan.put(&own, 2, now);
        assert_eq!(plan.give_back(&own, 3, now), Some(3), "two wait, that is all that may");
        assert_eq!(plan.surplus(now, |_| true), [0; 0]);
        let later = now + DEMAND;
        assert_eq!(plan.take(&own, later), Some(1));
        plan.lend(&own, later);
        assert_eq!(plan.give_back(&own, 1, later), None);
        plan.returned(&own);
        assert_eq!(plan.surplus(later, |_| true).len(), 1, "one at a time is enough now, however many jobs");
        plan.put(&own, 2, later);

        let another = Shape { class: "another".to_owned(), ..own.clone() };
        assert_eq!(plan.take(&another, now), None);
        assert_eq!(plan.take_alike(&another), None, "another controller never gets it");
        let fewer = Shape { reuse: 2, ..own };
        assert!(plan.take(&fewer, now).is_some(), "how often it may be used makes no difference");
    }

    #[test]
    fn of_a_class_that_is_none_any_more_nothing_is_kept() {
        let now = Instant::now();
        let mut plan = plan(0, 9, 10_000 * MIB);
        let of = |class: &str| Shape { class: class.to_owned(), reuse: 9, ..shape("a") };
        for (number, class) in ["", "gone", "known"].into_iter().enumerate() {
            plan.take(&of(class), now);
            plan.put(&of(class), u32::try_from(number).unwrap(), now);
        }
        plan.lend(&of("gone"), now);
        assert_eq!(plan.retire(&|class| class == "known"), [1]);
        // Its job ends after that.
        assert_eq!(plan.give_back(&of("gone"), 7, now), None);
        plan.returned(&of("gone"));
        assert_eq!(plan.surplus(now, |_| true), [7]);
        assert_eq!((plan.take(&of(""), now), plan.take(&of("known"), now)), (Some(0), Some(2)));
    }

    #[test]
    fn the_old_the_dead_and_the_moved_are_thrown_away() {
        let now = Instant::now();
        let mut plan = plan(2, 10, 10_000 * MIB);
        plan.want_default(&shape("a"));
        plan.put(&shape("a"), 1, now);
        plan.put(&shape("a"), 2, now + Duration::from_secs(1));
        assert_eq!(plan.surplus(now + Duration::from_secs(600), |_| true), [1], "too old");
        assert_eq!(plan.surplus(now, |waiting| *waiting != 2), [2], "dead");

        plan.put(&shape("a"), 3, now);
        assert_eq!(plan.take(&shape("b"), now), None, "the reference names another image now");
        assert_eq!(plan.surplus(now, |_| true), [3]);
        assert_eq!(plan.lacks(now).unwrap().image.id, "b", "and so does the default");

        let timeout = |seconds| {
            let mut shape = shape("b");
            shape.limits.timeout_seconds = seconds;
            shape
        };
        plan.put(&timeout(5), 4, now);
        assert_eq!(plan.take(&timeout(50), now), Some(4), "the timeout is the supervisor's");
        plan.put(&timeout(5), 5, now);
        assert_eq!(plan.empty(), [5]);
    }
}
