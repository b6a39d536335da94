//! The vectorised search: for the words that rules begin with, and for known values.

use std::sync::OnceLock;

use aho_corasick::packed;
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use super::window::{Hit, Window};

/// What a found word begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The name of a secret: `password`, `token`.
    Name,
    /// `pwd`: a password, or the present folder.
    Pwd,
    /// `Authorization`, whose value begins with the name of a scheme.
    Authorization,
    Bearer,
    Basic,
    /// The first letters of an AWS access key id.
    KeyId,
    /// The first letters of a bearer token of the agent.
    Token,
    /// `-----BEGIN `.
    Begin,
    /// `://`.
    Authority,
}

/// In lower case. None is the beginning of another, so at one place there is at most one.
const WORDS: [(&str, Word); 17] = [
    ("password", Word::Name),
    ("passwd", Word::Name),
    ("passphrase", Word::Name),
    ("token", Word::Name),
    ("api_key", Word::Name),
    ("apikey", Word::Name),
    ("api-key", Word::Name),
    ("secret", Word::Name),
    ("pwd", Word::Pwd),
    ("authorization", Word::Authorization),
    ("bearer", Word::Bearer),
    ("basic", Word::Basic),
    ("akia", Word::KeyId),
    ("asia", Word::KeyId),
    ("qca_", Word::Token),
    ("-----begin ", Word::Begin),
    ("://", Word::Authority),
];
/// Bytes of the longest word.
const LONGEST: usize = 13;

/// Finds the leftmost of many strings, of several at one place the longest.
pub enum Search {
    Vector(packed::Searcher),
    /// On a processor without the instructions, or with too many strings.
    Table(Box<AhoCorasick>),
    /// There are no strings.
    Nothing,
}

impl Search {
    pub fn new<S: AsRef<[u8]>>(strings: &[S]) -> Search {
        if strings.is_empty() {
            return Search::Nothing;
        }
        let mut vector = packed::Config::new().match_kind(packed::MatchKind::LeftmostLongest).builder();
        if let Some(vector) = vector.extend(strings).build() {
            return Search::Vector(vector);
        }
        // Not the default's choice: that may be a table of 1 KiB a byte of the strings.
        let table = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(strings);
        Search::Table(Box::new(table.expect("fewer than 2^31 states: the strings are far shorter together")))
    }

    /// The first at or after `from`: which, and from where to where.
    pub fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, usize)> {
        match self {
            Search::Vector(search) => {
                let found = search.find_in(text, aho_corasick::Span { start: from, end: text.len() })?;
                Some((found.pattern().as_usize(), found.start(), found.end()))
            }
            Search::Table(search) => {
                let found = search.find(Input::new(text).range(from..))?;
                Some((found.pattern().as_usize(), found.start(), found.end()))
            }
            Search::Nothing => None,
        }
    }
}

/// The search for [`WORDS`].
pub struct Words(Search);

/// Compiled once.
pub fn words() -> &'static Words {
    static ONCE: OnceLock<Words> = OnceLock::new();
    ONCE.get_or_init(|| Words(Search::new(&WORDS.map(|(word, _)| word))))
}

impl Words {
    /// Puts into `hits` the words that end after `searched`, which is moved on.
    pub fn find(&self, window: &Window, searched: &mut usize, lower: &mut Vec<u8>, hits: &mut Vec<Hit>) {
        hits.clear();
        let base = searched.saturating_sub(LONGEST - 1).max(window.base());
        lower.clear();
        lower.extend_from_slice(window.slice(base, window.end()));
        lower.make_ascii_lowercase();
        let mut from = 0;
        // Words may overlap, so the search goes on one byte further.
        while let Some((which, start, end)) = self.0.find(lower, from) {
            from = start + 1;
            if base + end > *searched {
                hits.push(Hit { start: base + start, end: base + end, word: WORDS[which].1 });
            }
        }
        *searched = window.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_as_the_search_needs_them() {
        assert_eq!(WORDS.iter().map(|(word, _)| word.len()).max(), Some(LONGEST));
        for (a, _) in WORDS {
            assert_eq!(a, a.to_lowercase());
            assert_eq!(WORDS.iter().filter(|(b, _)| b.starts_with(a)).count(), 1, "{a}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_words_are_searched_for_with_vectors() {
        if std::is_x86_feature_detected!("ssse3") {
            assert!(matches!(words().0, Search::Vector(_)));
        }
    }
}
