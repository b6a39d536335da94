//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use super::{
    artifacts::ArtifactsArgs, cancel::CancelArgs, exits, gen_key::GenKeyArgs, list::ListArgs, logs::LogsArgs,
};
use super::{output::OutputArgs, run::RunArgs, status::StatusArgs, submit::SubmitArgs, units};

/// Signs jobs, hands them to a QuickCMD agent, shows their output and asks after them.
#[derive(Debug, Parser)]
#[command(name = "quickcmd", version, max_term_width = 100, after_long_help = exits::TABLE)]
#[command(after_help = "`quickcmd --help` lists the exit codes; docs/cli.md says more.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which agent, and who we are. A flag wins over the environment, the environment over the file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct Global {
    /// Configuration file [default: ~/.config/quickcmd/config.yaml, else /etc/quickcmd/controller.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "QUICKCMD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The agent's address, such as https://agent.example.com:8443
    #[allow(rustdoc::bare_urls, reason = "clap shows this text as it is, brackets included")]
    #[arg(long, global = true, value_name = "URL", env = "QUICKCMD_URL")]
    pub url: Option<String>,
    /// Who we are to the agent
    #[arg(long, global = true, value_name = "ID", env = "QUICKCMD_CONTROLLER_ID")]
    pub controller_id: Option<String>,
    /// Which of the controller's keys signs
    #[arg(long, global = true, value_name = "ID", env = "QUICKCMD_KEY_ID")]
    pub key_id: Option<String>,
    /// File with the secret (or set QUICKCMD_SECRET, or QUICKCMD_SECRET_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// File with a bearer token, for all that needs no signature (or set QUICKCMD_TOKEN, or QUICKCMD_TOKEN_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Our own certificate (PEM), for an agent that asks for one
    #[arg(long, global = true, value_name = "FILE", env = "QUICKCMD_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "QUICKCMD_CLIENT_KEY", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Trust the authorities in this PEM file, or exactly the agent's own certificate in it
    #[arg(long, global = true, value_name = "FILE", env = "QUICKCMD_CA")]
    pub ca: Option<PathBuf>,
    /// Trust exactly the certificate with this SHA-256
    #[arg(long, global = true, value_name = "SHA256", env = "QUICKCMD_FINGERPRINT")]
    pub fingerprint: Option<String>,
    /// Trust anybody: whoever stands between can read everything
    #[arg(long, global = true)]
    pub insecure: bool,
    /// How long to keep trying a request that the agent can't take or answer now
    #[arg(long, global = true, value_name = "TIME", value_parser = units::duration)]
    pub patience: Option<Duration>,
    /// Print JSON: one object, or one a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command on the agent as if it were a local one
    Run(RunArgs),
    /// Hand a job to the agent and print its id
    Submit(SubmitArgs),
    /// Show a job's output
    Logs(LogsArgs),
    /// Show how a job is doing
    Status(StatusArgs),
    /// End a job
    Cancel(CancelArgs),
    /// List jobs, newest first
    List(ListArgs),
    /// Fetch the exact bytes that a job printed
    Output(OutputArgs),
    /// List or fetch the files that a job has left
    Artifacts(ArtifactsArgs),
    /// Ask the agent how it is
    Health,
    /// Make a secret for the agent and its controller
    GenKey(GenKeyArgs),
    /// For setting up an agent
    Agent {
        #[command(subcommand)]
        verb: AgentVerb,
    },
}

/// `quickcmd agent ...`
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// Make a secret for the agent and its controller (the same as `quickcmd gen-key`)
    GenKey(GenKeyArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
