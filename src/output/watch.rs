//! The watch on the folder: tells the rows that are followed when their file has changed.

use std::{
    collections::BTreeSet,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{
    io::unix::AsyncFd,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Outputs, row};

/// How often followed files are looked at without an event, so that a lost one never hangs a reader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the kernel told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    rows: BTreeSet<i64>,
    /// The kernel's queue was full: events are missing.
    lost: bool,
}

/// A watch on a folder's files.
pub(super) fn watch(dir: &Path) -> io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, dir, what)?;
    Ok(inotify)
}

impl Outputs {
    /// Hands events on to the rows that are followed, until the token is cancelled. Without it readers
    /// wait for ever: the agent keeps it running as one of its tasks.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Its successor `register` differs in being `unsafe`: an `AsRawFd` could lie. This one is the borrow of
        // an owned descriptor, which can't.
        #[allow(deprecated)]
        let events = match AsyncFd::new(self.inotify.as_fd()) {
            Ok(events) => Some(events),
            Err(error) => {
                tracing::error!(%error, "the spool folder can't be watched; output will come late");
                None
            }
        };
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                told = next(events.as_ref()) => self.tell(&told),
                _ = look.tick() => self.rows.all().iter().for_each(|row| row.look()),
            }
        }
    }

    fn tell(&self, told: &Told) {
        if told.lost {
            self.rows.all().iter().for_each(|row| row.wake());
            return;
        }
        for row in &told.rows {
            if let Some(row) = self.rows.existing(*row) {
                row.wake();
            }
        }
    }
}

/// Waits for events; all that have come.
async fn next<Fd: AsFd + std::os::fd::AsRawFd>(events: Option<&AsyncFd<Fd>>) -> Told {
    let Some(events) = events else { return std::future::pending().await };
    let mut told = Told::default();
    loop {
        let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
        // Cleared only when nothing was left: the next readiness is a new event.
        if drain(events.get_ref(), &mut told) {
            ready.clear_ready();
        }
        if told != Told::default() {
            return told;
        }
    }
}

/// Takes events out of the kernel's queue, one buffer at most; whether the queue is empty then.
fn drain(fd: impl AsFd, told: &mut Told) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    told.lost = true;
                }
                told.rows.extend(event.file_name().and_then(|name| row::number(name.to_bytes())));
                if reader.is_buffer_empty() {
                    return false;
                }
            }
            Err(Errno::INTR) => {}
            // Nothing more for now. What else may fail is made up for by the look at the files.
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn the_kernel_tells_which_spools_have_changed() {
        let dir = tempfile::tempdir().unwrap();
        let inotify = watch(dir.path()).unwrap();
        #[allow(deprecated)]
        let events = AsyncFd::new(inotify.as_fd()).unwrap();
        for round in 0..3 {
            fs::write(dir.path().join("other"), "x").unwrap();
            fs::write(dir.path().join("7.spool"), "x").unwrap();
            fs::write(dir.path().join("12.spool"), "x").unwrap();
            let mut rows = BTreeSet::new();
            while rows.len() < 2 {
                let told = next(Some(&events));
                rows.extend(tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().rows);
            }
            assert_eq!(rows, BTreeSet::from([7, 12]), "round {round}");
            while !drain(&inotify, &mut Told::default()) {}
        }
    }

    #[test]
    fn an_event_wakes_its_row_and_a_full_queue_wakes_all() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::open(dir.path()).unwrap();
        let rows = [outputs.rows.get(1), outputs.rows.get(2)];
        let mut news = rows.each_ref().map(|row| row.subscribe());
        let mut woken = |told: Told| {
            outputs.tell(&told);
            news.each_mut().map(|news| {
                let changed = news.has_changed().unwrap();
                news.mark_unchanged();
                changed
            })
        };
        assert_eq!(woken(Told { rows: [2, 3].into(), lost: false }), [false, true]);
        assert_eq!(woken(Told { rows: [].into(), lost: true }), [true, true]);
        assert_eq!(woken(Told::default()), [false, false]);
    }
}
