//! Runs a controller's program.

use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::harness::{Agent, CONTROLLER, PATIENCE};

/// What a program left.
#[derive(Debug)]
pub struct Left {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A file of the project.
pub fn path(relative: &str) -> String {
    format!("{}/{relative}", env!("CARGO_MANIFEST_DIR"))
}

/// A program that finds the agent, its certificate and the secret in its environment, as the examples do.
pub fn controller(program: &str, agent: &Agent, secret: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUICKCMD_")) {
        command.env_remove(name);
    }
    command
        .env("QUICKCMD_URL", agent.url(""))
        .env("QUICKCMD_CONTROLLER_ID", CONTROLLER)
        .env("QUICKCMD_SECRET", secret)
        .env("QUICKCMD_CA", agent.dir.path().join("cert.pem"));
    command
}

/// Runs it to its end.
pub async fn run(command: &mut Command) -> Left {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let Output { status, stdout, stderr } =
        tokio::time::timeout(2 * PATIENCE, child.wait_with_output()).await.expect("it ends").expect("output");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Left { code: status.code(), stdout, stderr }
}
