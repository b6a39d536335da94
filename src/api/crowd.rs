//! Many readers of one job. The first is served like everything else; those that come while it is there are served
//! on threads of low priority, so that a thousand of them leave the processor to the job, to the first reader
//! and to everybody else. They fall behind and catch up: the spool keeps what they lack.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::base::aside::Aside;

/// The readers of every job that has some.
#[derive(Debug, Default)]
pub struct Crowds {
    readers: Mutex<HashMap<String, usize>>,
    aside: Aside,
}

/// A reader's place among those of its job; given back when it is dropped.
struct Place {
    crowds: Arc<Crowds>,
    job: String,
}

impl Crowds {
    /// Serves a reader of that job to its end.
    pub async fn serve<F>(self: Arc<Crowds>, job: String, reader: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (place, first) = Place::take(&self, job);
        if first {
            reader.await;
            return;
        }
        let task = self.aside.spawn(async move {
            reader.await;
            drop(place);
        });
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(%error, "a reader's task panicked");
        }
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // No code that holds the lock can leave it half changed.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The place, and whether it is the first.
    fn take(crowds: &Arc<Crowds>, job: String) -> (Place, bool) {
        let mut readers = crowds.readers();
        let count = readers.entry(job.clone()).or_insert(0);
        *count += 1;
        let first = *count == 1;
        drop(readers);
        (Place { crowds: Arc::clone(crowds), job }, first)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut readers = self.crowds.readers();
        if let Some(count) = readers.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_of_a_job_without_readers() {
        let crowds = Arc::new(Crowds::default());
        let (_a, first) = Place::take(&crowds, "a".to_owned());
        let (second, other) = Place::take(&crowds, "a".to_owned());
        assert!(first && !other);
        Arc::clone(&crowds).serve("a".to_owned(), async {}).await;
        Arc::clone(&crowds).serve("b".to_owned(), async {}).await;
        assert_eq!(
            crowds.readers().iter().map(|(job, count)| (job.as_str(), *count)).collect::<Vec<_>>(),
            [("a", 2)]
        );
        drop(second);
        drop(_a);
        assert!(crowds.readers().is_empty());
    }
}
