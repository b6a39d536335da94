//! The agent as a process, on real Docker, over real TLS: one binary, its modules mirror what is asked of the
//! agent. Needs `QUICKCMD_TEST_IMAGE` (scripts/test.sh sets it); without Docker every test fails.

#[path = "../common/harness.rs"]
#[allow(dead_code, reason = "it is made for more than these tests")]
mod harness;

mod alone;
mod answers;
mod canaries;
mod cancel;
mod crash;
mod disk;
mod files;
mod filter;
mod full;
mod identity;
mod jobs;
mod limits;
mod mtls;
mod operate;
mod output;
mod pool;
mod preflight;
mod reads;
mod refusals;
mod reload;
mod reuse;
mod stream;
mod systemd;
mod tokens;
