//! Drives the real supervisor, as process 1 of a PID namespace, through its socket, and reads its spool.
//!
//! As root it runs as an unprivileged user, as in a sandbox; otherwise in a user namespace.

// A test that can not go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod endings;
mod files;
mod harness;
mod hostile;
mod output;
mod redaction;
mod stops;
