//! The frames of a row that were serialised last, for the other readers that are about to send them.

use std::collections::VecDeque;

use super::{cursor::Position, frame::Line};

/// Most frames kept of a row.
const FRAMES: usize = 64;
/// Most bytes kept of a row.
const BYTES: usize = 1 << 20;
/// Most bytes kept of a row where all rows together keep [`ALL`].
const LESS: usize = 128 << 10;
/// Bytes of all rows from which on each keeps little.
const ALL: usize = 8 << 20;

/// A frame, with where it stands.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Byte of the file where its record begins.
    pub(super) at: u64,
    pub(super) after: Position,
    pub(super) line: Line,
}

/// Frames in the order in which they were serialised. Mostly that is the order of the file; but readers
/// that are behind together share too, so it is not only the newest that are kept.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Recent {
    /// The frame whose record begins at this byte.
    pub(super) fn get(&self, at: u64) -> Option<Kept> {
        self.kept.iter().rev().find(|kept| kept.at == at).cloned()
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a frame, and lets the oldest go. `all`: the bytes that all rows keep.
    pub(super) fn push(&mut self, kept: Kept, all: usize) {
        if self.kept.iter().any(|other| other.at == kept.at) {
            return;
        }
        self.bytes += kept.line.json.len();
        self.kept.push_back(kept);
        let most = if all < ALL { BYTES } else { LESS };
        while self.kept.len() > FRAMES || self.bytes > most {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.line.json.len();
        }
    }

    /// Lets all go.
    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Stream;

    fn kept(at: u64, len: usize) -> Kept {
        let line = Line { seq: at, stream: Stream::Stdout, json: vec![b'x'; len].into() };
        Kept { at, after: Position::default(), line }
    }

    #[test]
    fn what_is_kept_is_bounded_in_frames_and_bytes() {
        let mut recent = Recent::default();
        for at in 0..1000 {
            recent.push(kept(at, 10), 0);
            recent.push(kept(at, 10), 0);
            assert_eq!(recent.get(at).unwrap().at, at);
        }
        assert_eq!((recent.kept.len(), recent.bytes()), (FRAMES, FRAMES * 10));
        for at in 2000..2030 {
            recent.push(kept(at, 50_000), 0);
        }
        assert!(recent.bytes() <= BYTES && recent.get(2029).is_some() && recent.get(2000).is_none());
        recent.push(kept(3000, 50_000), ALL);
        assert!(recent.bytes() <= LESS && recent.get(3000).is_some() && recent.get(2029).is_some());
        recent.push(kept(3001, BYTES + 1), 0);
        assert_eq!(recent.bytes(), 0, "one that is larger than all is not kept");
        recent.push(kept(3002, 1), 0);
        recent.clear();
        assert!(recent.get(3002).is_none() && recent.bytes() == 0);
    }
}
