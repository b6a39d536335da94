//! Values that are known beforehand.

use std::collections::BTreeSet;

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous;
use aho_corasick::{Anchored, MatchKind};

use super::SHORTEST;
use super::search::Search;
use super::window::Window;

/// Of a value of several lines, a line of so many bytes is masked by itself as well: programs print such
/// values indented, or with other line ends.
const SHORTEST_LINE: usize = 8;

/// One value, and for each length of its beginnings the longest shorter one that it ends with
/// (Knuth, Morris and Pratt's failure function).
struct Value {
    bytes: Vec<u8>,
    fallback: Vec<usize>,
}

pub struct Literals {
    values: Vec<Value>,
    /// Finds where a first occurrence begins.
    search: Search,
    /// Goes on from there through all that overlap, one step a byte however they do; `None`: no values.
    overlaps: Option<contiguous::NFA>,
}

impl Literals {
    pub fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Literals {
        let mut all = BTreeSet::new();
        for secret in secrets {
            all.insert(secret);
            // A value from a file ends with a line end, which is lost on the way through a shell.
            all.insert(secret.trim_ascii());
            if secret.trim_ascii().contains(&b'\n') {
                all.extend(
                    secret
                        .split(|&b| b == b'\n')
                        .map(<[u8]>::trim_ascii)
                        .filter(|l| l.len() >= SHORTEST_LINE),
                );
            }
        }
        all.retain(|value| value.len() >= SHORTEST);
        let values: Vec<Value> = all.into_iter().map(Value::new).collect();
        let strings: Vec<&[u8]> = values.iter().map(|value| &value.bytes[..]).collect();
        let search = Search::new(&strings);
        // Most jobs have none, and a machine for nothing takes as long to build as the rest of a submission.
        let overlaps = (!strings.is_empty()).then(|| {
            let overlaps = contiguous::Builder::new().match_kind(MatchKind::Standard).build(&strings);
            overlaps.expect("fewer than 2^31 states: values are far shorter together")
        });
        Literals { overlaps, values, search }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Masks every occurrence that begins at or after `from`, overlapping ones too, and moves `from` on to
    /// where one may begin that is not whole yet.
    pub fn find(&self, window: &Window, from: &mut usize, end: bool, masks: &mut Vec<(usize, usize)>) {
        let base = *from;
        let text = window.slice(base, window.end());
        let mut at = 0;
        while let Some((_, start, _)) = self.search.find(text, at) {
            at = self.run(text, start, base, masks);
        }
        let open =
            if end { 0 } else { self.values.iter().map(|value| value.open_end(text)).max().unwrap_or(0) };
        *from = window.end() - open;
    }
}

impl Literals {
    /// Masks the occurrences that begin at or after `start` and each overlap the one before, or nearly; how far
    /// it has looked.
    fn run(&self, text: &[u8], start: usize, base: usize, masks: &mut Vec<(usize, usize)>) -> usize {
        let Some(overlaps) = &self.overlaps else { return text.len() };
        let root = overlaps.start_state(Anchored::No).expect("the automaton has an unanchored start");
        let mut state = root;
        for (place, &byte) in text.iter().enumerate().skip(start) {
            state = overlaps.next_state(Anchored::No, state, byte);
            if overlaps.is_match(state) {
                // The first is the longest that ends here.
                let length = overlaps.pattern_len(overlaps.match_pattern(state, 0));
                let found = (base + place + 1 - length, base + place + 1);
                match masks.last_mut() {
                    Some(last) if found.0 <= last.1 && last.0 <= found.0 => last.1 = last.1.max(found.1),
                    _ => masks.push(found),
                }
            } else if state == root {
                return place + 1;
            }
        }
        text.len()
    }
}

impl Value {
    fn new(bytes: &[u8]) -> Value {
        let mut fallback = vec![0; bytes.len()];
        let mut length = 0;
        for at in 1..bytes.len() {
            while length > 0 && bytes[at] != bytes[length] {
                length = fallback[length - 1];
            }
            length += usize::from(bytes[at] == bytes[length]);
            fallback[at] = length;
        }
        Value { bytes: bytes.to_vec(), fallback }
    }

    /// How many bytes at the end of the text are a beginning of this value, but not all of it.
    fn open_end(&self, text: &[u8]) -> usize {
        let tail = &text[text.len() - text.len().min(self.bytes.len() - 1)..];
        let Some(first) = memchr::memchr(self.bytes[0], tail) else { return 0 };
        let mut length = 0;
        for &byte in &tail[first..] {
            while length > 0 && byte != self.bytes[length] {
                length = self.fallback[length - 1];
            }
            length += usize::from(byte == self.bytes[length]);
        }
        length
    }
}
