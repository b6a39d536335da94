//! What every handler shares.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{crowd::Crowds, service::Jobs};
use crate::{base::budget::Budget, config::ServerConfig, gate::rates::Rates, metrics::Metrics};

/// Addresses whose rates are remembered.
const ADDRESSES: usize = 65_536;
/// Bytes of all request bodies together, beyond the small part that each has for itself.
const BODIES: usize = 32 << 20;
/// Bytes of all large answers together: what is read of the record for them, and what waits to be sent.
const RESULTS: usize = 64 << 20;

/// The door's state.
pub struct App {
    pub jobs: Arc<dyn Jobs>,
    /// Swapped whole by a reload.
    pub config: Arc<ArcSwap<ServerConfig>>,
    pub metrics: Arc<Metrics>,
    /// By address.
    pub rates: Rates,
    /// Memory for request bodies: their senders may have proven nothing.
    pub bodies: Arc<Budget>,
    /// Memory for large answers: their readers may not read.
    pub results: Arc<Budget>,
    /// Whether callers come over TLS.
    pub secure: bool,
    pub pace: Pace,
    /// Open WebSocket streams.
    pub streams: TaskTracker,
    /// The same by job.
    pub crowds: Arc<Crowds>,
    /// Ends the streams.
    pub stop: CancellationToken,
    pub started: Instant,
}

/// How a WebSocket's other end is known to live, and what large answers wait for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one ping to the next.
    pub ping: Duration,
    /// Closed when nothing has moved for so long.
    pub silence: Duration,
    /// How long a large answer waits for memory, and then for each mebibyte of it to be read.
    pub large: Duration,
}

impl Pace {
    /// The contract's 20 and 40 seconds; pings come more often where the connection itself would be
    /// closed as idle before.
    pub fn of(config: &ServerConfig) -> Pace {
        let ping = Duration::from_secs(20).min(config.idle_timeout / 2).max(Duration::from_secs(1));
        Pace { ping, silence: ping * 2, large: Duration::from_secs(10) }
    }
}

impl App {
    /// The state of a door that has not been opened.
    pub fn new(
        jobs: Arc<dyn Jobs>,
        config: Arc<ArcSwap<ServerConfig>>,
        metrics: Arc<Metrics>,
        pace: Pace,
    ) -> App {
        let secure = config.load().tls.is_some();
        App {
            jobs,
            config,
            metrics,
            rates: Rates::new(ADDRESSES),
            bodies: Budget::new(BODIES),
            results: Budget::new(RESULTS),
            secure,
            pace,
            streams: TaskTracker::new(),
            crowds: Arc::default(),
            stop: CancellationToken::new(),
            started: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(idle: u64) -> (u64, u64) {
        let mut config = crate::api::tests::config();
        config.idle_timeout = Duration::from_secs(idle);
        let pace = Pace::of(&config);
        (pace.ping.as_secs(), pace.silence.as_secs())
    }

    #[test]
    fn pings_come_every_20_s_and_silence_lasts_40_unless_connections_end_sooner() {
        assert_eq!(pace(60), (20, 40));
        assert_eq!(pace(40), (20, 40));
        assert_eq!(pace(39), (19, 39));
        assert_eq!(pace(1), (1, 2));
    }
}
