//! The Docker engine against a real daemon, with the real supervisor. Needs Docker: without one these fail, they
//! do not skip (`scripts/docker-up.sh` starts one). The image is `QUICKCMD_TEST_IMAGE`, else what
//! `scripts/sandbox-image.sh` makes sure of; it must have a shell and the usual small tools.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod bench;
mod engine;
mod hardening;
mod images;
mod life;
mod ordinary;
mod pool;
mod reuse;
