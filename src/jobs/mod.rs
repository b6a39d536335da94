//! The job service: takes what the gate admitted, keeps it in order, brings it to a sandbox, and sees
//! it to its one end. Doors call [`Service`]; everything else in here is its own business.

pub mod ending;
pub mod queue;
pub mod state;
