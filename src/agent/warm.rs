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
pub(super) async fn run(engine: Arc<Docker>, mut wanted: watch::Receiver<Standing>, stop: CancellationToken) {
    loop {
        let standing = wanted.borrow_and_update().clone();
        let pause = if engine.health().ready { tell_once(&engine, &standing).await } else { AT_ONCE };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
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
            });
            LATER
        }
        Err(error) => {
            tracing::warn!(%error, "no sandbox is kept waiting");
            SOON
        }
    }
}
