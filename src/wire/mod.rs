//! The wire contract (docs/protocol.md) as types: what agent and controllers say to each other. Both
//! sides sign, verify and read with this code. No I/O, no state.

pub mod code;
pub mod envelope;
pub mod fields;
pub mod frame;
pub mod httpsig;
pub mod key;
pub mod payload;
pub mod problem;
pub mod result;
pub mod rights;
pub mod status;
pub mod token;

pub use code::Code;
pub use payload::{Payload, SandboxRequest};
pub use problem::Problem;
pub use result::JobResult;
pub use status::{Reason, Status};
