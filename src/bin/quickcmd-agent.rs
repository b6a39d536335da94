//! The agent's program: parses arguments, calls the library, maps errors to exit codes.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use quickcmd::{
    agent::{
        self, exits,
        verbs::{self, token},
    },
    config,
    filter::{Rules, Settings},
    wire::rights::Right,
};
use secrecy::ExposeSecret;

/// Takes signed jobs, runs each in a locked-down, single-use Docker sandbox, and keeps the record.
#[derive(Parser)]
#[command(name = "quickcmd-agent", version, after_long_help = exits::TABLE)]
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
    /// Copy the record to a new file, also while the agent runs, and check the copy.
    Backup {
        /// The new file.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Put a backup in the place of the record, while no agent runs; what was there is kept.
    Restore {
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Check the record from end to end, also while the agent runs.
    VerifyDb,
    /// List this agent's containers, and what the agent does with each.
    Sandboxes {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// Remove those that no job needs; only while no agent runs.
        #[arg(long)]
        remove: bool,
    },
    /// Tell the running agent to take and start no more jobs; those that run go on.
    Drain {
        /// Wait until no job runs, this many seconds at most.
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Take `drain` back.
    Undrain,
    /// Bearer tokens, for who reads or operates without a controller's key.
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Look at this host as an attacker would, and say what to change; exit code 1 if something is dangerous.
    Preflight {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Listen between the agent and Docker, and pass exactly the calls that the agent makes (docs/hardening.md).
    DockerFilter(DockerFilter),
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Make a token and print it, this once.
    Create {
        /// What it is good for: read, operate (cancel, drain) or admin; several with commas.
        #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
        scope: Vec<Right>,
        /// How long it is good, such as 12h or 30d; 366d at most.
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = ttl)]
        ttl: Duration,
        /// For this controller's jobs only; all controllers' without it.
        #[arg(long, value_name = "ID")]
        controller: Option<String>,
        /// What people call it in `token list`.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// Write the token to this new file, for its owner only, instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List all tokens: what they are good for, until when, when last used.
    List {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: it is good no more.
    Revoke {
        /// As `token list` shows it.
        id: String,
    },
}

fn scope(text: &str) -> Result<Right, String> {
    match Right::parse(text) {
        Some(Right::Submit) => Err("no token can submit: submissions are signed".to_owned()),
        Some(right) => Ok(right),
        None => Err("is no scope: there are read, operate and admin".to_owned()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = config::parse_duration(text)?;
    match ttl.as_secs() {
        60..=31_622_400 => Ok(ttl),
        _ => Err("is out of range: 1m to 366d is possible".to_owned()),
    }
}

/// Reads no configuration file: that holds secrets, and the filter is another user.
#[derive(clap::Args)]
struct DockerFilter {
    /// The socket to make for the agent: its `docker_host`.
    #[arg(long, value_name = "PATH", default_value = "/run/quickcmd-docker/docker.sock")]
    listen: PathBuf,
    /// The mode of that socket; its group is this process's.
    #[arg(long, value_name = "OCTAL", default_value = "660", value_parser = octal)]
    mode: u32,
    /// Docker's own socket. It must be there when the filter starts; that Docker answers may come later.
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    docker: PathBuf,
    /// The folder `sandboxes` in the agent's `data_dir`: what a container may mount lies in there.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/quickcmd/sandboxes")]
    sandboxes: String,
    /// `sandbox.uid` and `sandbox.gid`.
    #[arg(long, value_name = "UID:GID", default_value = "65532:65532", value_parser = user)]
    user: (u32, u32),
    /// An image that may be used and pulled, written as in `allowed_images`; repeatable. Without it: every image.
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<String>,
    /// An OCI runtime that may be named (`sandbox.runtimes`); repeatable.
    #[arg(long = "runtime", value_name = "NAME")]
    runtimes: Vec<String>,
    /// Let sandboxes have Docker's bridge network, where the agent's configuration lets them.
    #[arg(long)]
    bridge: bool,
    /// How much to log: `warn` has refusals only.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.filter(|mode| mode & 0o007 == 0)
        .ok_or_else(|| "write it like 660; others than owner and group get nothing".to_owned())
}

fn user(text: &str) -> Result<(u32, u32), String> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| "write it in numbers, like 65532:65532".to_owned())
}

impl DockerFilter {
    fn settings(self) -> Settings {
        let DockerFilter { listen, mode, docker, sandboxes, user, images, runtimes, bridge, log: _ } = self;
        Settings { listen, mode, docker, rules: Rules { sandboxes, user, images, runtimes, bridge } }
    }
}

impl Arguments {
    /// A check that also does something is none: somebody who wanted only to look must not have drained.
    fn unambiguous(self) -> Result<Arguments, clap::Error> {
        if self.check && self.verb.is_some() {
            let mut command = Arguments::command();
            return Err(
                command.error(ErrorKind::ArgumentConflict, "--check stands alone: leave it or the verb out")
            );
        }
        Ok(self)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse().and_then(Arguments::unambiguous) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap, too, and belong on stdout. Nobody there to read is no fault.
            let _unread = error.print();
            return if error.use_stderr() { ExitCode::from(exits::CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    let config = &arguments.config;
    let mut success = ExitCode::SUCCESS;
    let result = match arguments.verb {
        Some(Verb::GenKey) => Ok(quickcmd::config::generate_secret().expose_secret().to_owned()),
        Some(Verb::Backup { to }) => verbs::backup(config, &to),
        Some(Verb::Restore { from }) => verbs::restore(config, &from),
        Some(Verb::VerifyDb) => verbs::verify_db(config),
        Some(Verb::Sandboxes { json, remove }) => verbs::sandboxes(config, json, remove),
        Some(Verb::Drain { wait }) => verbs::drain(config, wait.map(Duration::from_secs)),
        Some(Verb::Undrain) => verbs::undrain(config),
        Some(Verb::Token { verb }) => match verb {
            TokenVerb::Create { scope: scopes, ttl, controller, name, out } => {
                token::create(config, token::Wanted { scopes, ttl, controller, name, out })
            }
            TokenVerb::List { json } => token::list(config, json),
            TokenVerb::Revoke { id } => token::revoke(config, &id),
        },
        Some(Verb::Preflight { json }) => verbs::preflight(config, json).map(|(text, dangerous)| {
            if dangerous {
                success = ExitCode::from(exits::DANGEROUS);
            }
            text
        }),
        Some(Verb::DockerFilter(arguments)) => {
            let level = arguments.log.clone();
            verbs::docker_filter(arguments.settings(), &level)
        }
        None if arguments.check => agent::check(config),
        None => agent::run(config).map(|()| String::new()),
    };
    match result {
        Ok(text) if text.is_empty() => success,
        Ok(text) => match print(&text) {
            Ok(()) => success,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(exits::BROKEN_PIPE),
            Err(error) => {
                complain(&format!("the answer could not be written to standard output: {error}"));
                ExitCode::from(exits::OUTPUT)
            }
        },
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Not `println!`, which panics where nobody reads.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// One line a fault, each to be found by the program's name in a journal. Lost in silence if standard error is gone.
fn complain(text: &str) {
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(&format!("quickcmd-agent: {line}\n"));
    }
    let _unread = io::stderr().write_all(lines.as_bytes());
}
