//! What is done again and again: each sweep is one pass that can be tested alone, and a loop calls them.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future;
use tokio_util::sync::CancellationToken;

use super::{
    conclude::{self, Ended},
    queue::Waiting,
    refusals, revoke, room, runner,
    shared::Shared,
    tokens,
};
use crate::{
    base::{
        clock::{Steady, Timestamp},
        failpoints::failpoint,
    },
    gate::quotas,
    store::{self, StoreError, jobs, retention, usage},
};

/// How often jobs are looked at whose ttl may have passed.
const EXPIRY: Duration = Duration::from_millis(500);
/// How often the disk's free space is looked at.
const STORAGE: Duration = Duration::from_secs(5);
/// For so long a look is as good as another.
const JUST_NOW: Duration = Duration::from_millis(20);
/// Free space below which it counts as full, where an eighth of the low watermark is not less.
const FULL: u64 = 32 << 20;
/// How often containers and database are compared (design: the sweep by label is the truth).
const RECONCILE: Duration = Duration::from_secs(30);
/// How often retention looks for what is too old.
const RETENTION: Duration = Duration::from_secs(60);
/// How often spools are looked for whose job retention has removed.
const ORPHANS: Duration = Duration::from_secs(3600);
/// Spools looked up in one read by that.
const LOOKED_UP: usize = 1000;
/// Days for which it is kept what each controller has used.
const USAGE_DAYS: i64 = 400;
/// How long a pass may go on after the token.
const LAST_PASS: Duration = Duration::from_secs(5);
/// Jobs whose containers are looked for in one read.
const UNCLEANED: u32 = 1000;
/// Rows changed in one transaction by a sweep, so that it holds up nobody.
const BATCH: u32 = 200;
/// Refusals of what nobody has signed that are kept, the newest: anybody can send them, and they must not fill
/// the disk.
const UNVERIFIED: u64 = 100_000;
/// Those deleted in one transaction; each such is an entry of the audit log, which a flood must not fill either.
const UNVERIFIED_BATCH: u32 = 5000;

/// The loop of what ends in the queue; ends with the token. Its own, for an end that waits for the record must not keep
/// the disk and the containers from being looked at.
pub(super) async fn expiry(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRY) => {}
        }
        let pass = async {
            expire_once(&shared, Timestamp::now()).await;
            revoke::once(&shared).await;
        };
        if !to_its_end(pass, &stop).await {
            return;
        }
    }
}

/// Does a pass; `false` if the stop came and it did not end then. A pass on a full disk, or with an engine that does
/// not answer, has no end of its own; what it leaves undone is found by the next start's.
async fn to_its_end(pass: impl Future<Output = ()>, stop: &CancellationToken) -> bool {
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_PASS).await;
    };
    tokio::select! {
        () = pass => true,
        () = too_long => {
            tracing::warn!("the sweeps did not come to their end before the stop");
            false
        }
    }
}

/// The loop of all else; ends with the token.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut steady = Steady::new(Timestamp::now(), Instant::now());
    let mut last_storage = Instant::now();
    let mut last_retention = Instant::now();
    // At once: an earlier life may have left containers.
    let mut next_reconcile = Instant::now();
    // At once, too: a crash may have come between retention's commit and the removal of files.
    let mut next_orphans = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXPIRY) => {}
        }
        let pass = async {
            refusals::write(&shared).await;
            if last_storage.elapsed() >= STORAGE {
                last_storage = Instant::now();
                storage_once(&shared).await;
                record_once(&shared).await;
            }
            if Instant::now() >= next_reconcile && shared.engine.health().ready {
                next_reconcile = Instant::now() + RECONCILE;
                reconcile_once(&shared).await;
            }
            let now = Timestamp::now();
            let believed = steady.now(now, Instant::now());
            if last_retention.elapsed() >= RETENTION {
                last_retention = Instant::now();
                tokens::uses(&shared).await;
                retention_once(&shared, believed, now).await;
            }
            if Instant::now() >= next_orphans {
                next_orphans = Instant::now() + ORPHANS;
                orphans_once(&shared).await;
            }
        };
        if !to_its_end(pass, &stop).await {
            return;
        }
    }
}

/// Ends the jobs whose ttl has passed while they waited.
pub(super) async fn expire_once(shared: &Arc<Shared>, now: Timestamp) {
    loop {
        // The ttl is a whole second; within it a job may still start.
        let second = Timestamp::from_secs(now.secs());
        let expired = shared.queue().expired(second, 100);
        if expired.is_empty() {
            return;
        }
        shared.show_depth();
        // At once: they share commits, and none waits for another's.
        let ends = expired.into_iter().map(|waiting| expire(shared, waiting));
        if future::join_all(ends).await.contains(&false) {
            return;
        }
    }
}

/// Ends one of them; `false` if it could not be looked at, and waits on.
async fn expire(shared: &Arc<Shared>, waiting: Waiting) -> bool {
    let row = waiting.row;
    match shared.store.read(move |db| jobs::get(db, row)).await {
        Ok(Some(job)) => {
            conclude::write(shared, Ended::never_ran(&job, runner::expired()), None).await;
        }
        Ok(None) => tracing::error!(row, "a queued job is not in the database any more"),
        Err(error) => {
            tracing::error!(row, %error, "an expired job could not be read; it is tried again");
            shared.queue().push(waiting);
            return false;
        }
    }
    true
}

/// The same where it was not done just now: many jobs may come to their turns at once.
pub(super) async fn storage_lately(shared: &Arc<Shared>) {
    let looked = *shared.storage_looked.lock().unwrap_or_else(PoisonError::into_inner);
    if looked.is_none_or(|at| at.elapsed() > JUST_NOW) {
        storage_once(shared).await;
    }
}

/// Looks at the free space where the database is and where the spools are; below the low watermark no job is
/// taken, and where it is full none is begun.
pub(super) async fn storage_once(shared: &Arc<Shared>) {
    let database = shared.store.path().to_owned();
    let spools = shared.outputs.dir().to_owned();
    let free = tokio::task::spawn_blocking(move || {
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
        smallest_free(&[folder.unwrap_or(Path::new(".")), &spools])
    })
    .await;
    let Ok(Ok(free)) = free else { return };
    *shared.storage_looked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    shared.metrics.storage_free.set(i64::try_from(free).unwrap_or(i64::MAX));
    let watermark = shared.settings.load().storage.low_watermark;
    let low = free < watermark;
    let full = free < (watermark / 8).min(FULL);
    if shared.storage_full.swap(full, Ordering::Relaxed) != full && full {
        tracing::error!(free, "the data folder is full: waiting jobs wait on, and refusals are not recorded");
    }
    if shared.storage_low.swap(low, Ordering::Relaxed) != low {
        if low {
            tracing::error!(free, watermark, "the data folder is nearly full: new jobs are refused");
        } else {
            tracing::info!(free, watermark, "the data folder has space again: jobs are taken");
        }
    }
}

/// Free bytes, for an ordinary user, of the fullest of the file systems that the folders are on.
fn smallest_free(folders: &[&Path]) -> rustix::io::Result<u64> {
    let mut smallest = u64::MAX;
    for folder in folders {
        let stat = rustix::fs::statvfs(*folder)?;
        smallest = smallest.min(stat.f_bavail.saturating_mul(stat.f_frsize));
    }
    Ok(smallest)
}

/// Where the database has refused a write, tries one: readiness turns green by itself. While another waits to be
/// written, that one is the test.
pub(super) async fn record_once(shared: &Arc<Shared>) {
    if shared.record_problem.load().is_none() || shared.waits_for_record() {
        return;
    }
    let tried = shared
        .store
        // It says what is there, and still writes a page: one that finds no row would need no space.
        .write(|tx| {
            Ok(tx.execute("UPDATE jobs SET attempt = attempt WHERE row = (SELECT max(row) FROM jobs)", [])?)
        })
        .await;
    match tried {
        Ok(_) => {
            shared.record_problem.store(None);
            tracing::info!("the database can be written again");
        }
        Err(error) => shared.record_problem.store(Some(Arc::new(error.to_string()))),
    }
}

/// Removes containers that no job needs, and records whose are gone. What this process made and still has
/// is not in the database yet, or not any more: the engine tells. What is neither needed nor ours was left by an
/// earlier life of the agent, for the record's lock lets only one live at a time.
pub(super) async fn reconcile_once(shared: &Arc<Shared>) {
    let found = match shared.engine.list().await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "containers could not be listed");
            return;
        }
    };
    let unfinished = match shared.store.read(jobs::holders).await {
        Ok(rows) => rows,
        Err(error) => return not_compared(&error),
    };
    let needed: HashSet<&str> = unfinished.iter().filter_map(|job| job.container_id.as_deref()).collect();
    let there: HashSet<&str> = found.iter().map(|container| container.container_id.as_str()).collect();

    for container in &found {
        let id = container.container_id.as_str();
        if needed.contains(id) || shared.engine.is_mine(id) {
            continue;
        }
        tracing::info!(container = id, name = container.name, "a container that no job needs is removed");
        match shared.engine.remove(id).await {
            Ok(()) => shared.metrics.reaped.inc(),
            Err(error) => {
                tracing::error!(container = id, %error, "a container could not be removed; trying again")
            }
        }
    }

    let now = Timestamp::now();
    // Page after page, for the jobs of a sandbox that is still used stay where they are.
    let mut after = 0;
    loop {
        let page = match shared.store.read(move |db| jobs::uncleaned(db, after, UNCLEANED)).await {
            Ok(page) => page,
            Err(error) => return not_compared(&error),
        };
        let Some(last) = page.last() else { return };
        after = last.row;
        let gone: Vec<i64> = page
            .iter()
            // One that was made since they were listed is not gone.
            .filter(|job| {
                let there = |id: &str| there.contains(id) || shared.engine.is_mine(id);
                !job.container_id.as_deref().is_some_and(there)
            })
            .map(|job| job.row)
            .collect();
        for rows in gone.chunks(BATCH as usize) {
            let rows = rows.to_vec();
            let written = shared
                .store
                .write(move |tx| rows.iter().try_for_each(|row| jobs::cleaned(tx, *row, now)))
                .await;
            if let Err(error) = written {
                tracing::error!(%error, "removed containers could not be recorded");
            }
            failpoint!("cleaned");
        }
    }
}

fn not_compared(error: &StoreError) {
    tracing::error!(%error, "the database could not be compared with the containers");
}

/// Removes output and records that are older than configured, and the oldest output above the size that all
/// may have together. Ages count from `believed`, a time that no jump of the clock brings near; `now` is recorded.
pub(super) async fn retention_once(shared: &Arc<Shared>, believed: Timestamp, now: Timestamp) {
    let settings = shared.settings.load_full();
    let before = |age: Duration| {
        Timestamp(believed.0.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)))
    };

    let cut = before(settings.storage.retention);
    loop {
        match shared.store.write(move |tx| retention::purge(tx, cut, BATCH, now)).await {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => remove_spools(shared, &rows),
            Err(error) => {
                tracing::error!(%error, "retention could not remove what is too old");
                return;
            }
        }
    }
    if !settings.storage.record_retention.is_zero() {
        let cut = before(settings.storage.record_retention);
        loop {
            let deleted = shared
                .store
                .write(move |tx| {
                    let rows = retention::delete(tx, cut, BATCH, now)?;
                    let more = retention::delete_submissions(tx, cut, BATCH, now)?;
                    store::tokens::forget(tx, cut)?;
                    Ok((rows, more))
                })
                .await;
            match deleted {
                Ok((rows, 0)) if rows.is_empty() => break,
                Ok((rows, _)) => remove_spools(shared, &rows),
                Err(error) => {
                    tracing::error!(%error, "retention could not remove records that are too old");
                    return;
                }
            }
        }
    }
    loop {
        let capped = shared
            .store
            .write(move |tx| retention::cap_unverified(tx, UNVERIFIED, UNVERIFIED_BATCH, now))
            .await;
        match capped {
            Ok(deleted) if deleted < u64::from(UNVERIFIED_BATCH) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "retention could not remove refusals beyond their number");
                return;
            }
        }
    }
    let day = quotas::day(now) - USAGE_DAYS;
    if let Err(error) = shared.store.write(move |tx| usage::forget(tx, day)).await {
        tracing::error!(%error, "retention could not remove what was used long ago");
        return;
    }
    room::make(shared, settings.storage.max_spool_bytes).await;
}

/// Removes the spools of jobs that retention has purged or deleted: it commits first, and a crash before the
/// removal leaves them.
pub(super) async fn orphans_once(shared: &Arc<Shared>) {
    let entries = match shared.outputs.rows().await {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, "the spools could not be listed");
            return;
        }
    };
    let mut rows: Vec<i64> = entries.iter().map(|entry| entry.row).collect();
    rows.sort_unstable();
    for chunk in rows.chunks(LOOKED_UP) {
        let chunk = chunk.to_vec();
        match shared.store.read(move |db| retention::gone(db, &chunk)).await {
            Ok(gone) => remove_spools(shared, &gone),
            Err(error) => {
                tracing::error!(%error, "spools could not be compared with the database");
                return;
            }
        }
    }
}

pub(super) fn remove_spools(shared: &Arc<Shared>, rows: &[i64]) {
    for row in rows {
        if let Err(error) = shared.outputs.remove(*row) {
            tracing::error!(row, %error, "a spool could not be removed; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_file_system_counts() {
        let folder = tempfile::tempdir().unwrap();
        // It has no space at all.
        let full = Path::new("/proc");
        assert!(smallest_free(&[folder.path()]).unwrap() > 0);
        assert_eq!(smallest_free(&[folder.path(), full]), Ok(0));
        assert_eq!(smallest_free(&[full, folder.path()]), Ok(0));
    }
}
