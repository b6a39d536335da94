//! The ground floor: identifiers, time, tasks. Uses nothing of the other rooms.

pub mod budget;
pub mod clock;
pub mod failpoints;
pub mod ids;
pub mod tasks;
