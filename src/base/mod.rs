//! The ground floor: identifiers, time, tasks. Uses nothing of the other rooms.

pub mod clock;
pub mod ids;
pub mod tasks;
