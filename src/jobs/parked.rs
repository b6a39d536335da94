//! Jobs that are set aside while their image is being pulled: they wait without a turn, by image, and go back to the
//! head of their lines when the pull has ended.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio_util::sync::{CancellationToken, DropGuard};

/// The images that are being pulled, and who waits for each.
#[derive(Debug, Default)]
pub(super) struct Parked {
    pulls: HashMap<Arc<str>, Pull>,
    /// The image that each row waits for.
    rows: HashMap<i64, Arc<str>>,
}

#[derive(Debug)]
struct Pull {
    /// Rows in the order they came; some may have been taken out of `rows` meanwhile.
    order: VecDeque<i64>,
    waiting: usize,
    /// Dropped with the last who waits: nobody needs to be told of the pull's end any more.
    _wanted: DropGuard,
}

impl Parked {
    /// Whether jobs wait for that image.
    pub fn is_pulled(&self, image: &str) -> bool {
        self.pulls.contains_key(image)
    }

    /// Whether that row waits here.
    pub fn has(&self, row: i64) -> bool {
        self.rows.contains_key(&row)
    }

    /// The rows that wait here, in no order.
    pub fn rows(&self) -> impl Iterator<Item = &i64> {
        self.rows.keys()
    }

    /// Adds a row. For the first of an image: a token that is cancelled when nobody waits for it any more.
    pub fn add(&mut self, row: i64, image: &Arc<str>) -> Option<CancellationToken> {
        let mut fresh = None;
        let pull = self.pulls.entry(Arc::clone(image)).or_insert_with(|| {
            let wanted = CancellationToken::new();
            fresh = Some(wanted.clone());
            Pull { order: VecDeque::new(), waiting: 0, _wanted: wanted.drop_guard() }
        });
        if self.rows.insert(row, Arc::clone(image)).is_none() {
            pull.order.push_back(row);
            pull.waiting += 1;
        }
        fresh
    }

    /// Takes one out; whether it was here.
    pub fn remove(&mut self, row: i64) -> bool {
        let Some(image) = self.rows.remove(&row) else { return false };
        if let Some(pull) = self.pulls.get_mut(&image) {
            pull.waiting -= 1;
            if pull.waiting == 0 {
                self.pulls.remove(&image);
            }
        }
        true
    }

    /// Takes out all who wait for that image, in the order they came.
    pub fn release(&mut self, image: &str) -> VecDeque<i64> {
        let Some(Pull { mut order, .. }) = self.pulls.remove(image) else { return VecDeque::new() };
        order.retain(|row| self.rows.remove(row).is_some());
        order
    }
}
