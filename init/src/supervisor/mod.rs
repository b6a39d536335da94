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

/// How long no other job comes before what the last one wrote is brought to the disk. A sandbox that is used again
/// must not keep the next job waiting for it.
const IDLE: Duration = Duration::from_millis(50);

/// Waits for a job and runs it; and for others, as long as each says that another may follow. `Ok` also if no job came.
///
/// # Errors
/// The channel can't be reached or speaks another language, or the report can't be written.
pub fn supervise(folder: &Path) -> io::Result<()> {
    limits::shut_doors()?;
    let mut signals = signals::Signals::new()?;
    redact::prepare();
    let mut channel = channel::Channel::connect(&folder.join(proto::SOCKET_FILE))?;
    let mut last = None;
    let result = serve(&mut channel, &mut signals, &mut last);
    sync(&mut last);
    result
}

/// `last`: the spool of the last job, which the caller is to sync.
///
/// The agent syncs a spool with output or files in it before it records the end of its job, and gives a sandbox another
/// one only after that: so with the next job the former spool is let go as it is. While no other comes the agent may be dead, and what the
/// last job wrote is synced from here.
fn serve(
    channel: &mut channel::Channel,
    signals: &mut signals::Signals,
    last: &mut Option<Spooler>,
) -> io::Result<()> {
    let mut places = None;
    loop {
        match channel.wait(signals, last.is_some().then_some(IDLE))? {
            Heard::Idle => sync(last),
            Heard::End => return Ok(()),
            Heard::Something => {
                let Some(order) = channel.receive()? else { return Ok(()) };
                drop(last.take());
                let again = order.job.again;
                if again && places.is_none() {
                    places = Some(clean::Places::look());
                }
                let (fit, spool) = run::run(order, channel, signals)?;
                *last = Some(spool);
                let emptied = match &places {
                    Some(Ok(places)) if again && fit => places.empty().is_ok(),
                    _ => false,
                };
                // The agent sees the end, and takes a new sandbox.
                if !emptied || channel.hello_again().is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A disk that can't be synced can't be helped from here.
fn sync(last: &mut Option<Spooler>) {
    if let Some(spool) = last.take() {
        let _ = spool.sync();
    }
}
