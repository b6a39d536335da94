//! Sandboxes that wait for a job.
use std::sync::Arc;

use super::{
    Shape,
    docker::{Core, Ready},
    probe::Probe,
};

pub(super) struct Pool {}

impl Pool {
    pub(super) fn new(_core: Arc<Core>) -> Pool {
        Pool {}
    }
    pub(super) fn want_default(&self, _shape: Shape) {}
    pub(super) async fn take(&self, _shape: &Shape) -> Option<Ready> {
        None
    }
    pub(super) async fn run(&self, _probe: &Probe) {
        std::future::pending().await
    }
    pub(super) fn close(&self) {}
}
