//! QuickCMD: an agent that runs signed, time-bound jobs in single-use Docker sandboxes, and the
//! library and program that control it. ARCHITECTURE.md walks one job through these rooms.
//!
//! Rooms from top to bottom; a room uses only rooms below it (`tests/house.rs` holds that).

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

pub mod agent;
pub mod cli;

pub mod api;
pub mod client;

pub mod jobs;

pub mod filter;
pub mod preflight;

pub mod gate;
pub mod output;
pub mod sandbox;

pub mod store;

pub mod audit;

pub mod config;
pub mod metrics;

pub mod wire;

pub mod base;
