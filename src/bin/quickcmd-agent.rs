//! The agent's program: parses arguments, calls the library, maps errors to exit codes.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use quickcmd::agent;
use secrecy::ExposeSecret;

/// Takes signed jobs, runs each in a locked-down, single-use Docker sandbox, and keeps the record.
#[derive(Parser)]
#[command(name = "quickcmd-agent", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "PATH", default_value = "/etc/quickcmd/agent-config.yaml", global = true)]
    config: PathBuf,
    /// Only check the configuration and say what it comes to; exit code 64 if it has faults.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Print a fresh secret for `hmac_secret`.
    GenKey,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.verb {
        Some(Verb::GenKey) => {
            println!("{}", quickcmd::config::generate_secret().expose_secret());
            Ok(())
        }
        None if arguments.check => agent::check(&arguments.config).map(|text| println!("{text}")),
        None => agent::run(&arguments.config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickcmd-agent: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
