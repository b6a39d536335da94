//! The body of every refusal and error: `{"error", "code", "details"?, ...}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Code;

/// A refusal or error, as its body and its headers.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Problem {
    /// The code's sentence.
    pub error: String,
    pub code: Code,
    /// What exactly is wrong, and what to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub details: Option<String>,
    /// More fields, for programs: `agent_time`, `skew_seconds`, `field`, `rule` and such.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// Seconds for the `Retry-After` header, if a later try may succeed.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// The code with its own sentence and no details.
    pub fn new(code: Code) -> Problem {
        Problem {
            error: code.sentence().to_owned(),
            code,
            details: None,
            more: Map::new(),
            retry_after: None,
        }
    }

    /// Adds the sentence that says what exactly is wrong.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Problem {
        self.details = Some(details.into());
        self
    }

    /// Adds one field for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Problem {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Problem {
        self.retry_after = Some(seconds);
        self
    }
}
