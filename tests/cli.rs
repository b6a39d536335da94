//! `quickcmd` as a process against a small agent that speaks the contract: what it sends, prints and
//! leaves with.

#[path = "cli/artifacts.rs"]
mod artifacts;
#[path = "cli/endings.rs"]
mod endings;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/say.rs"]
mod say;
#[path = "cli/tls.rs"]
mod tls;
