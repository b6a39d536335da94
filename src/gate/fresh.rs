//! Freshness: a signature is of use for a short time only. Whole seconds, each bound itself still good.

use std::time::Duration;

use crate::{
    base::clock::Timestamp,
    config::GateConfig,
    wire::{Code, Problem},
};

const TOO_LONG: &str = "Job TTL is too far after its timestamp";

/// Check 4: `ttl >= now`, `now - timestamp <= max_age`, `timestamp - now <= max_skew`,
/// `ttl - timestamp <= max_ttl`, in this order.
pub(super) fn check(config: &GateConfig, ttl: i64, timestamp: i64, now: Timestamp) -> Result<(), Problem> {
    let agent = i128::from(now.secs());
    let (ttl, timestamp) = (i128::from(ttl), i128::from(timestamp));
    let bounds = [
        (Code::JobExpired, "Job TTL has passed", agent - ttl, 0),
        (Code::JobTooOld, "Job timestamp is too old", agent - timestamp, seconds(config.max_age)),
        (Code::JobFromFuture, "Job timestamp is in the future", timestamp - agent, seconds(config.max_skew)),
        (Code::JobFromFuture, TOO_LONG, ttl - timestamp, seconds(config.max_ttl)),
    ];
    for (code, sentence, skew, allowed) in bounds {
        if skew > allowed {
            // Of a ttl that is too long, no clock is the cause.
            let apart = if sentence == TOO_LONG {
                format!(": {skew} s, and {allowed} s are allowed (freshness.max_ttl)")
            } else {
                apart(agent - timestamp)
            };
            return Err(Problem::new(code)
                .details(format!("{}: {sentence}{apart}", code.as_str()))
                .with("agent_time", now.secs())
                .with("skew_seconds", clamp(skew))
                .with("allowed_seconds", clamp(allowed)));
        }
    }
    Ok(())
}

/// How far the two clocks lie apart, as far as the job tells, after v1's own sentence: whoever reads the answer has the
/// cause before them.
fn apart(behind: i128) -> String {
    match behind {
        0 => String::new(),
        1.. => format!("; by its timestamp it is {behind} s behind the agent's clock"),
        _ => format!("; by its timestamp it is {} s ahead of the agent's clock", -behind),
    }
}

fn seconds(duration: Duration) -> i128 {
    i128::from(duration.as_secs())
}

/// Two 64 bit numbers may lie further apart than JSON readers expect.
fn clamp(seconds: i128) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
