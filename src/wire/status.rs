//! What state a job is in, and why it ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A job's status on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, waiting.
    Pending,
    Running,
    /// The command ran to its own end, whatever its exit code.
    Completed,
    /// It did not.
    Failed,
    /// Refused after its MAC held; recorded, never queued.
    Rejected,
}

/// Why a job ended. A rejected job's reason is its [`super::Code`] instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Exited,
    Signalled,
    Timeout,
    Cancelled,
    Oom,
    OutputLimit,
    Expired,
    ImageUnavailable,
    SandboxError,
    Lost,
}

macro_rules! text {
    ($type:ident { $($name:ident = $text:literal,)* }) => {
        impl $type {
            /// Every value, for documentation, metrics and tests.
            pub const ALL: &'static [$type] = &[$($type::$name,)*];
            /// As it stands on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$name => $text,)* }
            }
            /// The value with that text, if there is one.
            pub fn parse(text: &str) -> Option<$type> {
                match text { $($text => Some($type::$name),)* _ => None }
            }
        }
    };
}

text!(Status {
    Pending = "pending",
    Running = "running",
    Completed = "completed",
    Failed = "failed",
    Rejected = "rejected",
});
text!(Reason {
    Exited = "exited",
    Signalled = "signalled",
    Timeout = "timeout",
    Cancelled = "cancelled",
    Oom = "oom",
    OutputLimit = "output_limit",
    Expired = "expired",
    ImageUnavailable = "image_unavailable",
    SandboxError = "sandbox_error",
    Lost = "lost",
});

impl Status {
    /// Whether a job in this status stays in it.
    pub fn is_final(self) -> bool {
        match self {
            Status::Pending | Status::Running => false,
            Status::Completed | Status::Failed | Status::Rejected => true,
        }
    }
}

impl Reason {
    /// The status that this ending means.
    pub fn status(self) -> Status {
        match self {
            Reason::Exited | Reason::Signalled => Status::Completed,
            Reason::Timeout
            | Reason::Cancelled
            | Reason::Oom
            | Reason::OutputLimit
            | Reason::Expired
            | Reason::ImageUnavailable
            | Reason::SandboxError
            | Reason::Lost => Status::Failed,
        }
    }
}
