//! How often one that has proved itself may read and cancel: the second limit, after that of its address.

use std::time::Instant;

use super::shared::Shared;
use crate::{
    gate::Reader,
    wire::{Code, Problem},
};

/// Counts a read.
///
/// # Errors
/// `RATE_LIMITED`.
pub(super) fn read(shared: &Shared, reader: &Reader) -> Result<(), Problem> {
    match reader {
        Reader::Controller { id, .. } => take(shared, id),
        Reader::Holder(holder) => take(shared, &holder.name),
        // Its address is all that is known of it.
        Reader::Anyone => Ok(()),
    }
}

/// Counts a read or a cancellation of that controller, or of who has that name.
///
/// # Errors
/// `RATE_LIMITED`.
pub(super) fn take(shared: &Shared, controller: &str) -> Result<(), Problem> {
    let gate = shared.gate.load();
    let rate = gate.controller(controller).map_or(gate.rate_of_reads(), |known| known.rate_of_reads);
    shared.reads.take(controller, rate, Instant::now()).map_err(|seconds| {
        Problem::new(Code::RateLimited)
            .details(format!(
                "{controller:?} reads and cancels more often than it may; try again in {seconds} s"
            ))
            .with("limit", "rate_of_reads")
            .retry_after(seconds)
    })
}
