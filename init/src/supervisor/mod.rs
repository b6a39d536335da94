//! The supervisor's parts: see the program's own page for the order in which they act.

mod beneath;
mod channel;
mod child;
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

use quickcmd_init::{proto, redact};

/// Waits for one job and runs it. `Ok` also if no job came.
///
/// # Errors
/// The channel can't be reached or speaks another language, or the report can't be written.
pub fn supervise(folder: &Path) -> io::Result<()> {
    limits::shut_doors()?;
    let mut signals = signals::Signals::new()?;
    redact::prepare();
    let mut channel = channel::Channel::connect(&folder.join(proto::SOCKET_FILE))?;
    if !channel.wait(&mut signals)? {
        return Ok(());
    }
    match channel.receive()? {
        Some(order) => run::run(order, channel, signals),
        None => Ok(()),
    }
}
