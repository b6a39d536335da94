//! Refusals of what nobody has signed, until they are written. Anybody can send such a thing, so none gets a
//! commit of its own: the sweep writes them together, and what does not fit here is counted only.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use super::shared::Shared;
use crate::{
    store::submissions::{self, Refusal},
    wire::Code,
};

/// Refusals that wait at most.
const MOST: usize = 4096;
/// Written in one transaction, so that they hold up nobody.
const BATCH: usize = 512;

/// Refusals that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    rows: Vec<(Refusal, Code)>,
    left_out: u64,
}

impl Refusals {
    /// Keeps a refusal for the next [`write()`].
    pub(super) fn push(&self, refusal: Refusal, code: Code) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.rows.len() < MOST {
            waiting.rows.push((refusal, code));
        } else {
            waiting.left_out += 1;
        }
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes what waits.
pub(super) async fn write(shared: &Arc<Shared>) {
    let Waiting { mut rows, left_out } = shared.refusals.take();
    if left_out > 0 {
        tracing::warn!(left_out, "a flood of unsigned requests: these refusals are not recorded one by one");
    }
    if shared.storage_full.load(Ordering::Relaxed) && !rows.is_empty() {
        tracing::warn!(left_out = rows.len(), "the disk is full: these refusals are not recorded");
        return;
    }
    while !rows.is_empty() {
        let batch: Vec<_> = rows.drain(..rows.len().min(BATCH)).collect();
        let count = batch.len();
        let written = shared
            .store
            .write(move |tx| {
                batch.iter().try_for_each(|(refusal, code)| submissions::refused(tx, refusal, *code))
            })
            .await;
        if let Err(error) = written {
            tracing::error!(%error, count, "refusals could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        for _ in 0..MOST + 7 {
            refusals.push(Refusal::default(), Code::InvalidSignature);
        }
        let waiting = refusals.take();
        assert_eq!((waiting.rows.len(), waiting.left_out), (MOST, 7));
        assert!(refusals.take().rows.is_empty());
    }
}
