//! `quickcmd`: one file a verb; what they share is how they are told (args, settings), how they say it
//! (out, fault, hints, options, exits) and how a job's output passes through (pump, cut).

mod args;
mod artifacts;
mod cancel;
mod cut;
mod exits;
mod fault;
mod gen_key;
mod health;
mod hints;
mod job;
mod landing;
mod list;
mod logs;
mod options;
mod out;
mod output;
mod pump;
mod run;
mod settings;
mod status;
mod submit;
mod units;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use args::{AgentVerb, Cli, Verb};
use fault::Fault;

/// Reads the command line, does what it says, and gives the exit code (see `exits`).
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; `print` chooses the stream.
            if error.use_stderr() && json_wanted(std::env::args_os()) {
                return ExitCode::from(Fault::of_command_line(&error).report(true));
            }
            let code = if error.use_stderr() { exits::USAGE } else { exits::OK };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let json = cli.global.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let fault = Fault::new(exits::SOFTWARE, format!("cannot start: {error}"));
            return ExitCode::from(fault.report(json));
        }
    };
    let done = runtime.block_on(dispatch(cli));
    // A write to a full pipe may hang in its thread for ever: leave without it.
    runtime.shutdown_background();
    ExitCode::from(match done {
        Ok(code) => code,
        Err(fault) => fault.report(json),
    })
}

/// Whether a command line that could not be understood asks for JSON.
fn json_wanted(args: impl Iterator<Item = OsString>) -> bool {
    args.skip(1).take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

async fn dispatch(cli: Cli) -> Result<u8, Fault> {
    let global = cli.global;
    match cli.verb {
        Verb::GenKey(args) | Verb::Agent { verb: AgentVerb::GenKey(args) } => gen_key::run(&global, &args),
        Verb::Run(args) => run::run(&global, args).await,
        Verb::Submit(args) => submit::run(&global, args).await,
        Verb::Logs(args) => logs::run(&global, &args).await,
        Verb::Status(args) => status::run(&global, &args).await,
        Verb::Cancel(args) => cancel::run(&global, &args).await,
        Verb::List(args) => list::run(&global, &args).await,
        Verb::Output(args) => output::run(&global, &args).await,
        Verb::Artifacts(args) => artifacts::run(&global, &args).await,
        Verb::Health => health::run(&global).await,
    }
}
