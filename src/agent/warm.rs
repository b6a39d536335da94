//! Tells the engine which sandboxes to keep waiting always: those of the default image and limits.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Limits},
    jobs,
    sandbox::{Docker, Engine, Shape},
    wire::payload::Network,
};

/// How soon it is looked again whether Docker is there.
const AT_ONCE: Duration = Duration::from_millis(200);
/// How soon it is tried again while the image can't be resolved.
const SOON: Duration = Duration::from_secs(5);
/// How often the image is looked at: its tag may have moved.
const LATER: Duration = Duration::from_secs(60);

/// The default image and limits of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standing {
    image: String,
    limits: Limits,
}

impl Standing {
    pub(super) fn of(config: &Config) -> Standing {
        Standing { image: config.gate.default_image.clone(), limits: config.gate.defaults }
    }
}

/// The task; follows the configuration, ends with the token.
pub(super) async fn run(engine: Arc<Docker>, wanted: watch::Receiver<Standing>, stop: CancellationToken) {
    keep_telling(wanted, stop, |standing| {
        let engine = Arc::clone(&engine);
        async move { if engine.health().ready { tell_once(&engine, &standing).await } else { AT_ONCE } }
    })
    .await;
}

/// The task, whatever it tells; `tell` may take as long as a pull, and is left where it is at the stop.
async fn keep_telling<F: Future<Output = Duration>>(
    mut wanted: watch::Receiver<Standing>,
    stop: CancellationToken,
    tell: impl Fn(Standing) -> F,
) {
    loop {
        let standing = wanted.borrow_and_update().clone();
        let told = async { tokio::time::sleep(tell(standing).await).await };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = told => {}
        }
    }
}

/// Resolves the image and tells the engine; when to do it again.
async fn tell_once(engine: &Arc<Docker>, default: &Standing) -> Duration {
    match engine.resolve(&default.image).await {
        Ok(image) => {
            engine.want_default(Shape {
                image,
                limits: default.limits,
                network: Network::None,
                class: jobs::CLASS.to_owned(),
                reuse: 1,
            });
            LATER
        }
        Err(error) => {
            tracing::warn!(%error, "no sandbox is kept waiting");
            SOON
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(image: &str) -> Standing {
        let limits = Limits { cpu: 1.0, memory: 1 << 30, pids: 100, timeout_seconds: 10, tmpfs: 1 << 20 };
        Standing { image: image.to_owned(), limits }
    }

    #[tokio::test]
    async fn neither_the_stop_nor_a_reload_waits_for_a_pull() {
        let (tell, wanted) = watch::channel(standing("old"));
        let stop = CancellationToken::new();
        let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(keep_telling(wanted, stop.clone(), move |standing| {
            let _ = told.send(standing.image);
            std::future::pending()
        }));
        let all = async {
            assert_eq!(seen.recv().await.as_deref(), Some("old"));
            tell.send_replace(standing("new"));
            assert_eq!(seen.recv().await.as_deref(), Some("new"));
            stop.cancel();
            task.await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("it waits for the pull");
    }
}
