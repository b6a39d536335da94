//! What the supervisor and the agent share: the channel's messages, the spool's format and the
//! redaction of secrets. The agent depends on this library; the supervisor is this package's program.

pub mod proto;
pub mod redact;
pub mod spool;
