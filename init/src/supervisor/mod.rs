//! The supervisor's parts: see the program's own page for the order in which they act.

mod beneath;
mod channel;
mod child;
mod clean;
mod collect;
mod guard;
mod limits;
mod place;
mod processes;
mod run;
mod signals;
mod spooler;
mod stream;

use std::io;
use std::path::Path;
use std::time::Duration;

use quickcmd_init::{proto, redact};

use channel::Heard;
use spooler::Spooler;

/// How long no other job comes before what the last ones wrote is brought to the disk. A sandbox that is used again
/// must not keep the next job waiting for it.
const IDLE: Duration = Duration::from_millis(50);
/// Spools that wait for that at most.
const UNSYNCED: usize = 32;

/// Waits for a job and runs it; and for others, as long as each says that another may follow. `Ok` also if no job came.
///
/// # Errors
/// The channel can't be reached or speaks another language, or the report can't be written.
pub fn supervise(folder: &Path) -> io::Result<()> {
    limits::shut_doors()?;
    let mut signals = signals::Signals::new()?;
    redact::prepare();
    let mut channel = channel::Channel::connect(&folder.join(proto::SOCKET_FILE))?;
    let mut places = None;
    let mut unsynced: Vec<Spooler> = Vec::new();
    loop {
        let idle = (!unsynced.is_empty()).then_some(IDLE);
        match channel.wait(&mut signals, idle)? {
            Heard::Idle => sync(&mut unsynced),
            Heard::End => break,
            Heard::Something => {
                let Some(order) = channel.receive()? else { break };
                let again = order.job.again;
                if again && places.is_none() {
                    places = Some(clean::Places::look());
                }
                let (fit, spool) = run::run(order, &mut channel, &mut signals)?;
                unsynced.push(spool);
                if !again || !fit {
                    break;
                }
                let emptied = match &places {
                    Some(Ok(places)) => places.empty(),
                    Some(Err(error)) => Err(io::Error::other(error.to_string())),
                    None => break,
                };
                // The agent sees the end, and takes a new sandbox.
                if emptied.is_err() || channel.hello_again().is_err() {
                    break;
                }
                if unsynced.len() >= UNSYNCED {
                    sync(&mut unsynced);
                }
            }
        }
    }
    sync(&mut unsynced);
    Ok(())
}

/// A disk that can't be synced can't be helped from here.
fn sync(unsynced: &mut Vec<Spooler>) {
    for spool in unsynced.drain(..) {
        let _ = spool.sync();
    }
}
