//! One file a path.

pub mod artifacts;
pub mod cancel;
pub mod drain;
pub mod health;
pub mod jobs;
pub mod metrics;
pub mod openapi;
pub mod output;
pub mod stream;

use std::sync::Arc;

use crate::{
    api::{error::internal, service::Answer, service::Jobs},
    wire::Problem,
};

/// Does something that must not stop halfway: a handler is dropped where it waits when its client goes
/// away, a task is not.
async fn to_the_end<T, F>(jobs: Arc<dyn Jobs>, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: for<'a> FnOnce(&'a dyn Jobs) -> Answer<'a, T> + Send + 'static,
{
    let span = tracing::Span::current();
    let task = tokio::spawn(tracing::Instrument::instrument(async move { work(&*jobs).await }, span));
    task.await.unwrap_or_else(|error| Err(internal("a task of the door ended early", &error)))
}
