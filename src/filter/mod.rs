//! A socket between the agent and Docker that passes exactly the calls, and the bodies, that the agent makes, and
//! answers everything else with 403. Who takes over the agent, which listens on the network, can then start sandboxes
//! like the agent's and nothing else: no privileged container, no folder of the host's, none of other people's
//! containers. The filter runs as a user of its own, who alone is in Docker's group.
//!
//! ```text
//! agent -> serve: one connection, strict HTTP/1.1 -> call: method, path and query become a `Call`, or nothing
//!               -> body: a create or update call is made anew from its variable parts and must be the same
//!               -> own: the container it names has a name and a mount as the agent's have
//!               -> upstream: the call, written anew, to Docker; the answer back
//!               -> list: of a list the agent's own entries only, while it comes
//! ```
//!
//! Nothing of a request is passed on as it came: path, query, headers and body are made again from what was
//! understood. So no difference in how the two sides read HTTP or JSON can be used.

mod body;
mod call;
mod list;
mod own;
mod serve;
mod start;
#[cfg(test)]
mod tests;
mod upstream;

use std::path::PathBuf;

use hyper::StatusCode;

pub use serve::{Filter, Listening};
pub use start::Unfit;

/// What the filter lets through, beyond what is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The agent's `data_dir/sandboxes`, absolute: a container may mount its own folder in there.
    pub sandboxes: String,
    /// `sandbox.uid` and `sandbox.gid` of the agent's configuration.
    pub user: (u32, u32),
    /// Images as the agent's configuration writes them; empty: any.
    pub images: Vec<String>,
    /// OCI runtimes that a container may name, beside Docker's default.
    pub runtimes: Vec<String>,
    /// Whether `network: bridge` is possible.
    pub bridge: bool,
}

impl Rules {
    /// Looks for what would make the filter useless.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        let plain = self.sandboxes.starts_with('/')
            && self.sandboxes.len() > 1
            && self.sandboxes.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !plain {
            return Err(format!(
                "--sandboxes {}: name the agent's folder by its absolute path, for example /var/lib/quickcmd/sandboxes",
                self.sandboxes
            ));
        }
        if self.user.0 == 0 || self.user.1 == 0 {
            return Err("--user: root is refused; name sandbox.uid and sandbox.gid, for example 65532:65532"
                .to_owned());
        }
        Ok(())
    }

    /// Whether a reference is on the list, written as there or with the tag that Docker would add.
    fn allows_image(&self, reference: &str) -> bool {
        let wanted = call::with_tag(reference);
        self.images.is_empty() || self.images.iter().any(|image| call::with_tag(image) == wanted)
    }
}

/// Where the filter listens, where Docker does, and what may pass.
#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: PathBuf,
    /// Mode of the socket: its group is the process's.
    pub mode: u32,
    pub docker: PathBuf,
    pub rules: Rules,
}

/// Why a call does not pass: the answer's status, and a sentence for whoever reads the agent's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("docker-filter: {why}")]
struct Refusal {
    status: StatusCode,
    why: String,
}

impl Refusal {
    /// Not what the agent does.
    fn forbidden(why: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::FORBIDDEN, why: why.into() }
    }

    /// Not HTTP as the agent speaks it.
    fn bad(why: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, why: why.into() }
    }
}
