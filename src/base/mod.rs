//! The ground floor: identifiers, time, tasks, what is on the disk. Uses nothing of the other rooms.

pub mod aside;
pub mod budget;
pub mod clock;
pub mod disk;
pub mod failpoints;
pub mod ids;
pub mod pace;
pub mod tasks;
pub mod users;
