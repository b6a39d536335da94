//! Values that are known beforehand.

use std::collections::BTreeSet;

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
    search: Search,
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
        Literals { values, search }
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
        while let Some((_, start, stop)) = self.search.find(text, at) {
            masks.push((base + start, base + stop));
            at = start + 1;
        }
        let open =
            if end { 0 } else { self.values.iter().map(|value| value.open_end(text)).max().unwrap_or(0) };
        *from = window.end() - open;
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
