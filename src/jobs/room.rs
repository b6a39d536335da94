//! The room that all kept output has together (`storage.max_spool`), shared out between controllers.
//!
//! What goes first is the oldest of the controller that has most: one that writes much pushes out its own output, not
//! that of the others, as long as these have less than an even share.

use std::{
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
};

use super::{shared::Shared, sweeps};
use crate::store::{StoreError, jobs};

/// Rows looked up in one go.
const LOOKED_UP: usize = 1000;

/// A spool as it is weighed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weighed {
    row: i64,
    bytes: u64,
    /// Whose it is; empty where no record says so.
    controller: Arc<str>,
    /// Nobody writes to it any more.
    ended: bool,
}

/// Removes spools of ended jobs while all together are larger than they may be.
pub(super) async fn make(shared: &Arc<Shared>, max: u64) {
    let mut entries = match shared.outputs.rows().await {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, "the spools could not be listed");
            return;
        }
    };
    let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    if total > max {
        entries.sort_by_key(|entry| entry.modified);
        let sizes: Vec<(i64, u64)> = entries.iter().map(|entry| (entry.row, entry.bytes)).collect();
        match weigh(shared, &sizes).await {
            Ok(weighed) => {
                let (rows, freed) = surplus(weighed, max);
                sweeps::remove_spools(shared, &rows);
                total = total.saturating_sub(freed);
            }
            Err(error) => tracing::error!(%error, "spools could not be compared with the database"),
        }
    }
    shared.metrics.spool_bytes.set(i64::try_from(total).unwrap_or(i64::MAX));
}

async fn weigh(shared: &Arc<Shared>, sizes: &[(i64, u64)]) -> Result<Vec<Weighed>, StoreError> {
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    let mut weighed = Vec::with_capacity(sizes.len());
    for chunk in sizes.chunks(LOOKED_UP) {
        let rows: Vec<i64> = chunk.iter().map(|(row, _)| *row).collect();
        let owners = shared.store.read(move |db| jobs::owners(db, &rows)).await?;
        for ((row, bytes), owner) in chunk.iter().zip(owners) {
            let (name, over) = owner.unwrap_or((String::new(), true));
            let controller = Arc::clone(names.entry(name).or_insert_with_key(|name| name.as_str().into()));
            let ended = over && !shared.is_live(*row);
            weighed.push(Weighed { row: *row, bytes: *bytes, controller, ended });
        }
    }
    Ok(weighed)
}

/// What one controller has.
#[derive(Default)]
struct Share {
    bytes: u64,
    /// What can go, oldest first: row and bytes.
    removable: VecDeque<(i64, u64)>,
}

/// Which spools go so that the others are `max` bytes at most, and how many bytes that frees. `spools`: oldest first.
fn surplus(spools: Vec<Weighed>, max: u64) -> (Vec<i64>, u64) {
    let total: u64 = spools.iter().map(|spool| spool.bytes).sum();
    let mut shares: HashMap<Arc<str>, Share> = HashMap::new();
    for spool in spools {
        let share = shares.entry(spool.controller).or_default();
        share.bytes += spool.bytes;
        if spool.ended {
            share.removable.push_back((spool.row, spool.bytes));
        }
    }
    // By name as well, so that it is the same every time.
    let weight = |(name, share): (Arc<str>, Share)| (share.bytes, name, share.removable);
    let mut heaviest: BinaryHeap<_> = shares.into_iter().map(weight).collect();
    let (mut rows, mut freed) = (Vec::new(), 0);
    while total - freed > max
        && let Some((held, name, mut removable)) = heaviest.pop()
    {
        // Of one whose jobs all run nothing can go; the next has to give.
        let Some((row, bytes)) = removable.pop_front() else { continue };
        rows.push(row);
        freed += bytes;
        heaviest.push((held - bytes, name, removable));
    }
    (rows, freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spools(of: &[(&str, u64)]) -> Vec<Weighed> {
        let weighed = |(row, (controller, bytes)): (usize, &(&str, u64))| Weighed {
            row: i64::try_from(row).unwrap(),
            bytes: *bytes,
            controller: controller.trim_end_matches('*').into(),
            ended: !controller.ends_with('*'),
        };
        of.iter().enumerate().map(weighed).collect()
    }

    #[test]
    fn what_fits_stays() {
        let all = spools(&[("a", 4), ("b", 6)]);
        assert_eq!(surplus(all.clone(), 10), (vec![], 0));
        assert_eq!(surplus(all, 9), (vec![1], 6), "the controller that has most");
        assert_eq!(surplus(Vec::new(), 0), (vec![], 0));
    }

    #[test]
    fn who_writes_much_pushes_out_its_own_oldest() {
        let all = spools(&[("victim", 3), ("flood", 9), ("flood", 9), ("flood", 9)]);
        assert_eq!(surplus(all.clone(), 20), (vec![1, 2], 18));
        assert_eq!(surplus(all.clone(), 12), (vec![1, 2], 18));
        assert_eq!(surplus(all, 11), (vec![1, 2, 3], 27));
    }

    #[test]
    fn all_come_down_to_an_even_share() {
        let all = spools(&[("a", 1), ("b", 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1), ("a", 1), ("b", 1)]);
        let (rows, freed) = surplus(all, 4);
        assert_eq!((rows, freed), (vec![0, 1, 2, 4], 4), "a and b keep their newest, c all it has");
    }

    #[test]
    fn what_runs_is_not_touched() {
        let all = spools(&[("busy*", 50), ("busy", 1), ("busy*", 50), ("idle", 5)]);
        assert_eq!(surplus(all, 10), (vec![1, 3], 6), "and the others give what they have");
    }
}
