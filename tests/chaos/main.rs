//! Tries to break the agent's promises: it is killed at every step of a job's life (`failpoints`), and one fault after the
//! other befalls it while controllers work (`storm`). On real Docker, with the cargo feature `failpoints`;
//! docs/testing.md tells how.

#[path = "../common/harness.rs"]
#[allow(dead_code, reason = "it is made for more than these tests")]
mod harness;

mod clients;
mod clock;
mod docker;
mod failpoints;
mod faults;
mod model;
mod model_tests;
mod power;
mod proxy;
mod rng;
mod storm;
mod tally;
