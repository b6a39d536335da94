//! Threads of low priority, for work that may take what is left of the processor and must hold up nobody. Among the
//! agent's own threads the scheduler sees to that; where others want the processor, containers above all, the threads
//! rest by themselves ([`Pace`]).

use std::{cell::RefCell, future::Future, pin::pin, sync::OnceLock};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use super::pace::Pace;

/// How far below the others they stand: with a tenth of their weight. Not lower, for a thread that has to go while it
/// holds a lock which one of the others needs must soon come back.
pub const NICE: i32 = 10;

/// The threads; they come with the first task.
#[derive(Debug, Default)]
pub struct Aside {
    /// `None`: the system gives no threads, and the tasks run among the others.
    runtime: OnceLock<Option<Runtime>>,
}

impl Aside {
    /// Runs a task there. What it waits for may belong to the runtime that calls this.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.runtime.get_or_init(start) {
            Some(runtime) => runtime.spawn(paced(task)),
            None => tokio::spawn(task),
        }
    }
}

/// The task, each step of it after the rest that the thread owes to others.
fn paced<F: Future>(task: F) -> impl Future<Output = F::Output> {
    thread_local! {
        static PACE: RefCell<Pace> = RefCell::new(Pace::here());
    }
    async move {
        let mut task = pin!(task);
        std::future::poll_fn(move |context| {
            PACE.with_borrow_mut(|pace| {
                let rest = pace.rest();
                if !rest.is_zero() {
                    // The whole thread: it has nothing to do that would not be in the way as well.
                    std::thread::sleep(rest);
                }
            });
            task.as_mut().poll(context)
        })
        .await
    }
}

fn start() -> Option<Runtime> {
    let runtime = Builder::new_multi_thread()
        .thread_name("aside")
        .on_thread_start(|| {
            // Nobody is refused a lower one; and if it were, nothing would be wrong but the order.
            let _ = rustix::process::nice(NICE);
        })
        .enable_all()
        .build();
    runtime
        .inspect_err(
            |error| tracing::warn!(%error, "there are no threads of low priority; readers share the others"),
        )
        .ok()
}

impl Drop for Aside {
    /// Its owner may be dropped by a task, which must not wait for threads.
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_runs_on_a_thread_of_lower_priority_and_hears_the_others() {
        let here = rustix::process::nice(0).unwrap();
        let aside = Aside::default();
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let task = aside.spawn(async move {
            asked.await.unwrap();
            rustix::process::nice(0).unwrap()
        });
        ask.send(()).unwrap();
        assert_eq!(task.await.unwrap(), (here + NICE).min(19));
        assert_eq!(rustix::process::nice(0).unwrap(), here, "only theirs");
    }
}
