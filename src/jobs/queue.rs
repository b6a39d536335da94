//! The order in which waiting jobs get their turn: first in, first out per controller, and the
//! controllers in a ring, so that a flood of one starves nobody. Each step costs the same with ten jobs waiting and
//! with a million. The queue holds only what the turn is decided by; the job itself is in the database. Jobs whose image
//! is being pulled stand aside meanwhile (`parked.rs`): they wait, and hold up nobody.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use super::parked::Parked;
use crate::{base::clock::Timestamp, gate::KeyUsed};

/// A waiting job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its row in the database.
    pub row: i64,
    /// Whose it is.
    pub controller: Arc<str>,
    /// It must start by then.
    pub ttl: Timestamp,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// The image that it runs in, as it was asked for.
    pub image: Arc<str>,
    /// Since when the engine has not answered when this job had its turn.
    pub unreachable_since: Option<Instant>,
    /// Whether it has stood aside for its image, and that was there then: it keeps its turn now, whatever is pulled.
    pub stood_aside: bool,
    /// The class of sandboxes that are used again which it was accepted for, if any; not known after a restart.
    pub class: Option<Arc<str>>,
    /// The key that it was signed with.
    pub key: KeyUsed,
}

/// Why a job can't be queued now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The whole queue has no place left.
    Queue { depth: usize },
    /// This controller has no place left.
    Controller { depth: usize },
    /// What is left is kept for controllers that have fewer jobs waiting.
    Share { depth: usize },
}

/// How many jobs may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Of all controllers.
    pub max: usize,
    /// Of this one, if that is limited.
    pub of_one: Option<usize>,
    /// How many controllers there are to share the places.
    pub controllers: usize,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: HashMap<Arc<str>, Lane>,
    /// Controllers with waiting jobs, in the order of their turns.
    ring: VecDeque<Arc<str>>,
    /// Rows by the time they expire at.
    by_ttl: BTreeSet<(Timestamp, i64)>,
    /// Rows that wait, with their controller; those that stand aside, too.
    rows: HashMap<i64, Waiting>,
    parked: Parked,
    /// Places promised to submissions that are being written.
    reserved: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// Rows in order; some may have been taken out of `rows` meanwhile.
    order: VecDeque<i64>,
    /// Those in line.
    waiting: usize,
    /// Those that stand aside.
    aside: usize,
    reserved: usize,
}

impl Queue {
    /// Promises a place, to be used with [`Queue::push`] or given back with [`Queue::release`].
    ///
    /// # Errors
    /// [`Full`] if as many jobs as may, of all or of this controller, wait or are promised; and for a controller that
    /// has its even share already, if only the last tenth of the places is left: a flood leaves room for the others.
    pub fn reserve(&mut self, controller: &str, places: Places) -> Result<(), Full> {
        let depth = self.rows.len() + self.reserved;
        if depth >= places.max {
            return Err(Full::Queue { depth });
        }
        let own = self.lanes.get(controller).map_or(0, |lane| lane.waiting + lane.aside + lane.reserved);
        if places.of_one.is_some_and(|most| own >= most) {
            return Err(Full::Controller { depth: own });
        }
        let even = (places.max / places.controllers.max(1)).max(1);
        if places.controllers > 1 && depth >= places.max - places.max / 10 && own >= even {
            return Err(Full::Share { depth: own });
        }
        self.reserved += 1;
        self.lane(controller).reserved += 1;
        Ok(())
    }

    /// Gives a promised place back.
    pub fn release(&mut self, controller: &str) {
        self.reserved = self.reserved.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(controller) {
            lane.reserved = lane.reserved.saturating_sub(1);
            self.tidy(controller);
        }
    }

    /// Adds a job at the end of its controller's line; a row that already waits is left as it is.
    pub fn push(&mut self, job: Waiting) {
        if self.rows.contains_key(&job.row) {
            return;
        }
        let lane = self.lanes.entry(Arc::clone(&job.controller)).or_default();
        if lane.waiting == 0 {
            lane.order.clear();
            self.ring.push_back(Arc::clone(&job.controller));
        }
        lane.order.push_back(job.row);
        lane.waiting += 1;
        self.by_ttl.insert((job.ttl, job.row));
        self.rows.insert(job.row, job);
    }

    /// Puts a job back at the head of its controller's line, and the controller at the head of the ring.
    pub fn push_front(&mut self, job: Waiting) {
        let (row, controller) = (job.row, Arc::clone(&job.controller));
        self.push(job);
        if let Some(lane) = self.lanes.get_mut(&controller)
            && let Some(at) = lane.order.iter().rposition(|r| *r == row)
        {
            lane.order.remove(at);
            lane.order.push_front(row);
        }
        if let Some(at) = self.ring.iter().position(|c| *c == controller) {
            self.ring.remove(at);
            self.ring.push_front(controller);
        }
    }

    /// The next job whose turn it is, of a controller that may start one. Those that may not keep their place.
    pub fn pop(&mut self, may_start: impl Fn(&str) -> bool) -> Option<Waiting> {
        loop {
            let at = self.ring.iter().position(|controller| may_start(controller))?;
            let controller = self.ring.remove(at)?;
            let Some(lane) = self.lanes.get_mut(&controller) else { continue };
            while let Some(row) = lane.order.pop_front() {
                // Rows that were taken out of the middle are skipped here.
                let Some(job) = self.rows.get_mut(&row).filter(|_| !self.parked.has(row)) else { continue };
                lane.waiting -= 1;
                if !job.stood_aside && self.parked.is_pulled(&job.image) {
                    job.stood_aside = true;
                    lane.aside += 1;
                    self.parked.add(row, &job.image);
                    continue;
                }
                let Some(job) = self.rows.remove(&row) else { continue };
                self.by_ttl.remove(&(job.ttl, row));
                if lane.waiting > 0 {
                    self.ring.push_back(controller);
                } else {
                    self.tidy(&controller);
                }
                return Some(job);
            }
            self.tidy(&controller);
        }
    }

    /// Lets a job that had its turn stand aside until [`Queue::unpark`] is called with its image. For the first of an
    /// image: a token that is cancelled when none waits for it any more.
    pub fn park(&mut self, job: Waiting) -> Option<CancellationToken> {
        if self.rows.contains_key(&job.row) {
            return None;
        }
        self.lanes.entry(Arc::clone(&job.controller)).or_default().aside += 1;
        self.by_ttl.insert((job.ttl, job.row));
        let fresh = self.parked.add(job.row, &job.image);
        self.rows.insert(job.row, Waiting { stood_aside: true, ..job });
        fresh
    }

    /// Puts the jobs that stand aside for an image back at the heads of their controllers' lines, in their order, and
    /// tells the first of them. Without the image they may stand aside once more: else a pull that breaks slowly would
    /// have each of them keep a turn while it is tried again.
    pub fn unpark(&mut self, image: &str, is_there: bool) -> Option<i64> {
        let released = self.parked.release(image);
        for &row in released.iter().rev() {
            let Some(job) = self.rows.get_mut(&row) else { continue };
            job.stood_aside = is_there;
            let lane = self.lanes.entry(Arc::clone(&job.controller)).or_default();
            lane.aside = lane.aside.saturating_sub(1);
            if lane.waiting == 0 {
                lane.order.clear();
                self.ring.push_back(Arc::clone(&job.controller));
            }
            lane.order.push_front(row);
            lane.waiting += 1;
        }
        released.front().copied()
    }

    /// Takes one job out of the middle; `None` if it does not wait (any more).
    pub fn take(&mut self, row: i64) -> Option<Waiting> {
        let job = self.rows.remove(&row)?;
        self.by_ttl.remove(&(job.ttl, row));
        let aside = self.parked.remove(row);
        if let Some(lane) = self.lanes.get_mut(&job.controller) {
            if aside {
                lane.aside -= 1;
            } else {
                lane.waiting -= 1;
                if lane.waiting == 0 {
                    self.ring.retain(|controller| *controller != job.controller);
                }
            }
            self.tidy(&job.controller);
        }
        Some(job)
    }

    /// Takes out jobs of controllers of which that is so, at most `most`.
    pub fn take_of(&mut self, is_so: impl Fn(&str) -> bool, most: usize) -> Vec<Waiting> {
        let lanes = self.lanes.iter().filter(|(controller, lane)| lane.waiting > 0 && is_so(controller));
        let waiting = lanes.flat_map(|(_, lane)| &lane.order).filter(|row| self.rows.contains_key(row));
        let is_its = |row: &&i64| self.rows.get(row).is_some_and(|job| is_so(&job.controller));
        let rows: Vec<i64> = waiting.chain(self.parked.rows().filter(is_its)).take(most).copied().collect();
        rows.into_iter().filter_map(|row| self.take(row)).collect()
    }

    /// The rows of the jobs of which that is so, oldest first. It looks at all.
    pub fn rows_of(&self, is_so: impl Fn(&Waiting) -> bool) -> Vec<i64> {
        let mut rows: Vec<i64> = self.rows.values().filter(|job| is_so(job)).map(|job| job.row).collect();
        rows.sort_unstable();
        rows
    }

    /// Takes out the jobs whose ttl has passed, at most `most`.
    pub fn expired(&mut self, now: Timestamp, most: usize) -> Vec<Waiting> {
        let rows: Vec<i64> =
            self.by_ttl.iter().take_while(|(ttl, _)| *ttl < now).take(most).map(|(_, row)| *row).collect();
        rows.into_iter().filter_map(|row| self.take(row)).collect()
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn lane(&mut self, controller: &str) -> &mut Lane {
        if !self.lanes.contains_key(controller) {
            self.lanes.insert(controller.into(), Lane::default());
        }
        self.lanes.get_mut(controller).expect("it was inserted above")
    }

    fn tidy(&mut self, controller: &str) {
        let idle = |lane: &Lane| lane.waiting == 0 && lane.aside == 0 && lane.reserved == 0;
        if self.lanes.get(controller).is_some_and(idle) {
            self.lanes.remove(controller);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(row: i64, controller: &str, ttl: i64) -> Waiting {
        Waiting {
            row,
            controller: controller.into(),
            ttl: Timestamp(ttl),
            accepted: Timestamp(0),
            image: "i".into(),
            unreachable_since: None,
            stood_aside: false,
            class: None,
            key: KeyUsed::default(),
        }
    }

    fn of(image: &str, job: Waiting) -> Waiting {
        Waiting { image: image.into(), ..job }
    }

    fn anybody(_: &str) -> bool {
        true
    }

    fn places(max: usize, of_one: Option<usize>) -> Places {
        Places { max, of_one, controllers: 2 }
    }

    fn order(queue: &mut Queue) -> Vec<i64> {
        std::iter::from_fn(|| queue.pop(anybody).map(|job| job.row)).collect()
    }

    #[test]
    fn controllers_take_turns() {
        let mut queue = Queue::default();
        for row in 1..=4 {
            queue.push(job(row, "flood", 9));
        }
        queue.push(job(5, "quiet", 9));
        queue.push(job(6, "quiet", 9));
        assert_eq!(order(&mut queue), [1, 5, 2, 6, 3, 4]);
        assert!(queue.lanes.is_empty() && queue.ring.is_empty() && queue.by_ttl.is_empty());
    }

    #[test]
    fn a_job_that_comes_back_is_next() {
        let mut queue = Queue::default();
        for (row, controller) in [(1, "a"), (2, "a"), (3, "b")] {
            queue.push(job(row, controller, 9));
        }
        let first = queue.pop(anybody).expect("three wait");
        queue.push_front(first);
        assert_eq!(order(&mut queue), [1, 3, 2]);
    }

    #[test]
    fn places_are_counted_with_those_promised() {
        let mut queue = Queue::default();
        queue.reserve("a", places(2, None)).expect("the first place");
        queue.push(job(1, "a", 9));
        queue.release("a");
        queue.reserve("a", places(2, Some(2))).expect("the second place");
        assert_eq!(queue.reserve("b", places(2, None)), Err(Full::Queue { depth: 2 }));
        assert_eq!(queue.reserve("a", places(9, Some(2))), Err(Full::Controller { depth: 2 }));
        queue.release("a");
        queue.reserve("b", places(2, Some(1))).expect("the place was given back");
    }

    #[test]
    fn a_flood_leaves_the_last_tenth_to_the_others() {
        let mut queue = Queue::default();
        for n in 0..90 {
            assert_eq!(queue.reserve("flood", places(100, None)), Ok(()), "{n}");
        }
        assert_eq!(queue.reserve("flood", places(100, None)), Err(Full::Share { depth: 90 }));
        for n in 0..10 {
            assert_eq!(queue.reserve("quiet", places(100, None)), Ok(()), "{n}");
        }
        assert_eq!(queue.reserve("quiet", places(100, None)), Err(Full::Queue { depth: 100 }));
        // Who is alone has all of it.
        let mut queue = Queue::default();
        let alone = Places { max: 100, of_one: None, controllers: 1 };
        assert!((0..100).all(|_| queue.reserve("alone", alone).is_ok()));
        assert_eq!(queue.reserve("alone", alone), Err(Full::Queue { depth: 100 }));
    }

    #[test]
    fn a_controller_that_may_not_start_holds_up_nobody_and_keeps_its_place() {
        let mut queue = Queue::default();
        for (row, controller) in [(1, "busy"), (2, "free"), (3, "busy"), (4, "free")] {
            queue.push(job(row, controller, 9));
        }
        let free = |controller: &str| controller != "busy";
        assert_eq!(queue.pop(free).map(|job| job.row), Some(2));
        assert_eq!(queue.pop(anybody).map(|job| job.row), Some(1), "it is still at the head of the ring");
        assert_eq!(queue.pop(free).map(|job| job.row), Some(4));
        assert_eq!(queue.pop(free), None);
        assert_eq!(order(&mut queue), [3]);
    }

    #[test]
    fn jobs_of_some_controllers_can_be_taken_out() {
        let mut queue = Queue::default();
        for (row, controller) in [(1, "gone"), (2, "here"), (3, "gone"), (4, "gone")] {
            queue.push(job(row, controller, 9));
        }
        queue.take(3);
        let gone = |controller: &str| controller == "gone";
        assert_eq!(queue.take_of(gone, 1).len(), 1);
        assert_eq!(queue.take_of(gone, 9).len(), 1);
        assert_eq!(queue.take_of(gone, 9), []);
        assert_eq!(order(&mut queue), [2]);
        assert!(queue.lanes.is_empty() && queue.ring.is_empty() && queue.by_ttl.is_empty());
    }

    #[test]
    fn jobs_of_a_key_are_found_wherever_they_wait() {
        let signed = |key_id: &str| KeyUsed { key_id: Some(key_id.into()), print: None };
        let mut queue = Queue::default();
        for (row, key_id) in [(3, "gone"), (1, "gone"), (2, "here")] {
            queue.push(Waiting { key: signed(key_id), ..job(row, "a", 9) });
        }
        queue
            .park(Waiting { key: signed("gone"), ..of("slow", job(4, "b", 9)) })
            .expect("the first of its image");
        assert_eq!(queue.rows_of(|job| job.key == signed("gone")), [1, 3, 4]);
        assert_eq!(queue.len(), 4, "they wait on");
    }

    #[test]
    fn only_what_is_past_its_ttl_expires() {
        let mut queue = Queue::default();
        for (row, ttl) in [(1, 30), (2, 10), (3, 20)] {
            queue.push(job(row, "a", ttl));
        }
        assert_eq!(queue.expired(Timestamp(10), 9), [], "a job may start at its ttl");
        let rows: Vec<i64> = queue.expired(Timestamp(21), 9).iter().map(|job| job.row).collect();
        assert_eq!(rows, [2, 3]);
        assert_eq!(order(&mut queue), [1]);
    }

    #[test]
    fn who_waits_for_a_pull_stands_aside_and_comes_back_first() {
        let mut queue = Queue::default();
        for (row, controller, image) in
            [(1, "a", "slow"), (2, "a", "slow"), (3, "a", "here"), (4, "b", "slow"), (5, "a", "slow")]
        {
            queue.push(of(image, job(row, controller, 9)));
        }
        let first = queue.pop(anybody).expect("the first");
        assert_eq!(first.row, 1);
        let wanted = queue.park(first).expect("the first of its image");
        assert_eq!(queue.pop(anybody).map(|job| job.row), Some(3), "past those of the same image");
        assert_eq!(queue.pop(anybody), None);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.reserve("a", places(9, Some(3))), Err(Full::Controller { depth: 3 }), "they wait");
        queue.push(of("here", job(6, "a", 9)));
        assert_eq!(queue.take(2).map(|job| job.row), Some(2));
        assert_eq!(queue.unpark("slow", true), Some(1));
        // Two controllers in turn; within one, those that stood aside are first and in their order.
        assert_eq!(order(&mut queue), [1, 4, 5, 6]);
        assert!(wanted.is_cancelled(), "nobody waits for it");
        assert!(queue.lanes.is_empty() && queue.ring.is_empty() && queue.by_ttl.is_empty());
    }

    #[test]
    fn a_job_stands_aside_once_and_a_pull_nobody_waits_for_holds_up_nobody() {
        let mut queue = Queue::default();
        queue.park(of("slow", job(1, "a", 9))).expect("the first");
        assert_eq!(queue.unpark("slow", true), Some(1));
        assert_eq!(queue.unpark("slow", true), None);
        let back = queue.pop(anybody).expect("it is in line");
        let wanted = queue.park(of("slow", job(2, "a", 5))).expect("another pull");
        queue.push_front(back);
        assert_eq!(queue.pop(anybody).map(|job| job.row), Some(1), "whatever is pulled");
        assert_eq!(queue.expired(Timestamp(6), 9).len(), 1, "its ttl counts");
        assert!(wanted.is_cancelled());
        queue.push(of("slow", job(3, "a", 9)));
        assert_eq!(order(&mut queue), [3]);
        queue.park(of("slow", job(4, "gone", 9)));
        assert_eq!(queue.take_of(|controller| controller == "gone", 9).len(), 1);
        assert!(queue.lanes.is_empty() && queue.ring.is_empty() && queue.is_empty());
    }

    #[test]
    fn who_waited_for_a_pull_that_broke_may_stand_aside_again() {
        let mut queue = Queue::default();
        for row in 1..=4 {
            queue.push(of("slow", job(row, "a", 9)));
        }
        queue.push(of("here", job(5, "a", 9)));
        let first = queue.pop(anybody).expect("the first");
        queue.park(first).expect("the first of its image");
        assert_eq!(queue.pop(anybody).map(|job| job.row), Some(5));
        assert_eq!(queue.unpark("slow", false), Some(1));
        let again = queue.pop(anybody).expect("it is in line");
        assert_eq!((again.row, again.stood_aside), (1, false));
        queue.park(again).expect("the next pull");
        assert_eq!(queue.pop(anybody), None, "the others go with it");
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.unpark("slow", true), Some(1));
        assert!((1..=4).all(|_| queue.pop(anybody).is_some_and(|job| job.stood_aside)));
    }

    proptest! {
        /// Whatever is pushed, popped, taken and set aside, every job comes out exactly once.
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(steps in prop::collection::vec((0..6u8, 0..5i64), 1..200)) {
            let mut queue = Queue::default();
            let mut next = 0;
            let mut inside = std::collections::BTreeSet::new();
            for (what, pick) in steps {
                match what {
                    0 | 1 => {
                        next += 1;
                        inside.insert(next);
                        queue.push(of(&format!("i{}", pick % 2), job(next, &format!("c{pick}"), next)));
                    }
                    2 => {
                        let row = queue.pop(anybody).map(|job| job.row);
                        prop_assert_eq!(row.is_none(), inside.len() == queue.parked.rows().count());
                        if let Some(row) = row {
                            prop_assert!(inside.remove(&row));
                        }
                    }
                    3 => {
                        if let Some(job) = queue.pop(anybody) {
                            queue.park(job);
                        }
                    }
                    4 => {
                        let first = queue.unpark(&format!("i{}", pick % 2), pick > 2);
                        prop_assert!(first.is_none_or(|row| inside.contains(&row)));
                    }
                    _ => {
                        let row = next - pick;
                        prop_assert_eq!(queue.take(row).is_some(), inside.remove(&row));
                    }
                }
                prop_assert_eq!(queue.len(), inside.len());
            }
            for image in ["i0", "i1"] {
                queue.unpark(image, true);
            }
            let rest: std::collections::BTreeSet<i64> = order(&mut queue).into_iter().collect();
            prop_assert_eq!(rest, inside);
            prop_assert!(queue.lanes.is_empty() && queue.ring.is_empty() && queue.by_ttl.is_empty());
        }
    }
}
