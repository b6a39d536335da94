//! The life of a job as one pure step. The database repeats the guard in each `UPDATE`.
//!
//! ```text
//! Queued --Claimed--> Starting --Started--> Running --Ended--> Ended
//!    |                   | |  ^                                  ^
//!    |                   | +--+ NotHandedOver (back to Queued)   |
//!    +------ Ended ------+---------------- Ended ----------------+
//! ```

use crate::wire::{Reason, Status};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted and on disk, waiting for its turn.
    Queued,
    /// Intent recorded: a sandbox gets the job now, or has got it.
    Starting,
    /// The supervisor has said that it started the command.
    Running,
    /// Over, for ever.
    Ended(Reason),
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its turn has come.
    Claimed,
    /// The sandbox could not take it, and surely has not: it may be tried again.
    NotHandedOver,
    /// The command has started.
    Started,
    /// It is over.
    Ended(Reason),
}

/// An event that can't happen in that state: a defect, or two owners of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state:?} can't take {event:?}")]
pub struct Refused {
    /// The state it was in.
    pub state: State,
    /// What was said to happen.
    pub event: Event,
}

/// The next state, or why there is none.
///
/// # Errors
/// [`Refused`] for every pair that the drawing above does not have.
pub fn step(state: State, event: Event) -> Result<State, Refused> {
    let refused = Err(Refused { state, event });
    match (state, event) {
        (State::Queued, Event::Claimed) => Ok(State::Starting),
        (State::Queued, Event::NotHandedOver | Event::Started) => refused,
        // A job may end in the queue only by words of the agent, not by an exit of its command.
        (State::Queued | State::Starting, Event::Ended(reason)) if never_ran(reason) => {
            Ok(State::Ended(reason))
        }
        (State::Queued, Event::Ended(_)) => refused,

        (State::Starting, Event::NotHandedOver) => Ok(State::Queued),
        (State::Starting, Event::Started) => Ok(State::Running),
        // The report may be read before the start was recorded: a short job.
        (State::Starting, Event::Ended(reason)) => Ok(State::Ended(reason)),
        (State::Starting, Event::Claimed) => refused,

        (State::Running, Event::Ended(Reason::Expired | Reason::ImageUnavailable)) => refused,
        (State::Running, Event::Ended(reason)) => Ok(State::Ended(reason)),
        (State::Running, Event::Claimed | Event::NotHandedOver | Event::Started) => refused,

        (State::Ended(_), Event::Claimed | Event::NotHandedOver | Event::Started | Event::Ended(_)) => {
            refused
        }
    }
}

/// Whether a job can end so without its command having run.
pub fn never_ran(reason: Reason) -> bool {
    match reason {
        Reason::Cancelled | Reason::Expired | Reason::ImageUnavailable | Reason::SandboxError => true,
        Reason::Exited
        | Reason::Signalled
        | Reason::Timeout
        | Reason::Oom
        | Reason::OutputLimit
        | Reason::Lost => false,
    }
}

impl State {
    /// The status that controllers see.
    pub fn status(self) -> Status {
        match self {
            State::Queued => Status::Pending,
            State::Starting | State::Running => Status::Running,
            State::Ended(reason) => reason.status(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of state and event, with the outcome written out: the drawing as a table.
    #[test]
    fn every_pair() {
        let mut states = vec![State::Queued, State::Starting, State::Running];
        states.extend(Reason::ALL.iter().map(|reason| State::Ended(*reason)));
        let mut events = vec![Event::Claimed, Event::NotHandedOver, Event::Started];
        events.extend(Reason::ALL.iter().map(|reason| Event::Ended(*reason)));

        for state in states {
            for event in &events {
                let expected = match (state, event) {
                    (State::Queued, Event::Claimed) => Some(State::Starting),
                    (State::Starting, Event::NotHandedOver) => Some(State::Queued),
                    (State::Starting, Event::Started) => Some(State::Running),
                    (State::Queued, Event::Ended(reason)) => matches!(
                        reason.as_str(),
                        "cancelled" | "expired" | "image_unavailable" | "sandbox_error"
                    )
                    .then_some(State::Ended(*reason)),
                    (State::Starting, Event::Ended(reason)) => Some(State::Ended(*reason)),
                    (State::Running, Event::Ended(reason)) => {
                        (!matches!(reason.as_str(), "expired" | "image_unavailable"))
                            .then_some(State::Ended(*reason))
                    }
                    _ => None,
                };
                assert_eq!(step(state, *event).ok(), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn an_ended_job_stays_as_it_is() {
        let ended = State::Ended(Reason::Exited);
        let error = step(ended, Event::Started).expect_err("nothing follows the end");
        assert_eq!(error.to_string(), "a job that is Ended(Exited) can't take Started");
    }

    #[test]
    fn status_follows_state() {
        assert_eq!(State::Queued.status(), Status::Pending);
        assert_eq!(State::Starting.status(), Status::Running);
        assert_eq!(State::Ended(Reason::Signalled).status(), Status::Completed);
        assert_eq!(State::Ended(Reason::Lost).status(), Status::Failed);
    }
}
