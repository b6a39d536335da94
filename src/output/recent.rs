//! The newest frames of a row, serialised once for all who read at its end.

use std::collections::VecDeque;

use super::{cursor::Position, frame::Line};

/// Most frames kept of a row.
const FRAMES: usize = 64;
/// Most bytes kept of a row.
const BYTES: usize = 128 << 10;

/// A frame, with where it stands.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Byte of the file where its record begins.
    pub(super) at: u64,
    pub(super) after: Position,
    pub(super) line: Line,
}

/// The newest frames, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Recent {
    /// The frame whose record begins at this byte.
    pub(super) fn get(&self, at: u64) -> Option<Kept> {
        let n = self.kept.binary_search_by_key(&at, |kept| kept.at).ok()?;
        self.kept.get(n).cloned()
    }

    /// Keeps a frame if it is newer than all that are kept, and lets the oldest go.
    pub(super) fn push(&mut self, kept: Kept) {
        if self.kept.back().is_some_and(|newest| newest.at >= kept.at) || kept.line.json.len() > BYTES {
            return;
        }
        self.bytes += kept.line.json.len();
        self.kept.push_back(kept);
        while self.kept.len() > FRAMES || self.bytes > BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.line.json.len();
        }
    }

    /// Lets all go.
    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }
}
