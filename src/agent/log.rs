//! The log: one line an event on standard error, for the journal.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogConfig;

/// Targets that are never more talkative than this, whatever the configuration says: they log whole
/// request bodies, environments of jobs included, at `debug`.
const CAPPED: &[&str] = &["bollard=warn", "hyper=warn", "hyper_util=warn", "h2=warn", "tungstenite=warn"];

/// Starts the log; a second call does nothing.
pub fn start(config: &LogConfig) {
    let registry = tracing_subscriber::registry().with(filter(&config.level));
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(true).with_ansi(false);
    let started = if config.json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        registry.with(layer).try_init()
    };
    drop(started);
}

fn filter(level: &str) -> EnvFilter {
    let mut filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    for cap in CAPPED {
        if let Ok(directive) = cap.parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_calls_to_docker_are_never_logged() {
        let text = filter("trace,bollard=trace").to_string();
        assert!(text.contains("bollard=warn"), "{text}");
        assert!(!text.contains("bollard=trace"), "{text}");
    }
}
