//! What `quickcmd` says when it fails: `error: cause`, then `hint: what to do`.

use std::io::{self, Write};

use serde_json::json;

use super::{exits, hints, options, out};
use crate::{client, wire::Payload};

/// A failure, with the exit code that it means.
#[derive(Debug)]
pub struct Fault {
    pub exit: u8,
    pub cause: String,
    /// The agent's code, if it was the agent who refused.
    pub code: Option<String>,
    pub hints: Vec<String>,
    /// Nothing is said: nobody reads it, or the job has said it.
    pub quiet: bool,
}

impl Fault {
    pub fn new(exit: u8, cause: impl Into<String>) -> Fault {
        Fault { exit, cause: cause.into(), code: None, hints: Vec::new(), quiet: false }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Fault {
        self.hints.push(hint.into());
        self
    }

    /// Our output could not be written; silent if it is only that its reader has gone.
    pub fn of_write(error: &io::Error) -> Fault {
        let mut fault = Fault::new(exits::IO, format!("cannot write the output: {error}"));
        if error.kind() == io::ErrorKind::BrokenPipe {
            fault.quiet = true;
            fault.exit = exits::BROKEN_PIPE;
        }
        fault
    }

    /// A job was not taken: as any call's failure, with what only the job itself can tell.
    pub fn of_submission(error: client::Error, payload: &Payload) -> Fault {
        let large = options::too_large(&error, payload);
        let mut fault = Fault::from(error);
        match large {
            Some(options::Large::Surely(hint)) => fault.hints = vec![hint],
            Some(options::Large::Perhaps(hint)) => fault.hints.push(hint),
            None => {}
        }
        fault
    }

    /// The command line can't be understood. The first paragraph says why; the others (tips, the usage) are
    /// hints.
    pub fn of_command_line(error: &clap::Error) -> Fault {
        let text = error.render().to_string();
        let mut said = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
        let cause = said.next().unwrap_or_default();
        let mut fault = Fault::new(exits::USAGE, cause.strip_prefix("error: ").unwrap_or(&cause));
        fault.hints = said.filter(|part| !part.is_empty()).collect();
        fault
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(&self, json: bool) -> u8 {
        if self.quiet {
            return self.exit;
        }
        let mut text = String::new();
        if json {
            let mut object = json!({ "error": self.cause, "exit_code": self.exit });
            if let Some(code) = &self.code {
                object["code"] = json!(code);
            }
            if !self.hints.is_empty() {
                object["hint"] = json!(self.hints.join("; "));
            }
            text = format!("{object}\n");
        } else {
            text += &format!("error: {}\n", out::safe(&self.cause));
            for hint in &self.hints {
                text += &format!("hint: {}\n", out::safe(hint));
            }
        }
        // Where even that can't be written there is nobody left to tell.
        let _ = io::stderr().write_all(text.as_bytes());
        self.exit
    }
}

impl From<client::Error> for Fault {
    fn from(error: client::Error) -> Fault {
        if let client::Error::Write(error) = &error {
            return Fault::of_write(error);
        }
        let code = match &error {
            client::Error::Refused(refusal) if !refusal.code_text.is_empty() => {
                Some(refusal.code_text.clone())
            }
            _ => None,
        };
        let (exit, hints) = hints::of(&error, crate::base::clock::Timestamp::now());
        Fault { exit, cause: error.to_string(), code, hints, quiet: false }
    }
}
