//! Masking of secrets in a stream of bytes.
//!
//! Two kinds of secrets are masked: **values** that are known beforehand, wherever they appear, and what
//! **patterns** find: values named as a password or the like (`pairs`), bearer and basic credentials and
//! AWS key ids (`credentials`), PEM private keys (`pem`), passwords in URLs (`url`).
//!
//! Each of these rules looks at the text by itself and says which bytes are secret; the bytes that any of
//! them has named come out as one [`MASK`] per unbroken run. So no rule can hide a secret from another,
//! and of two values that overlap nothing remains.
//!
//! The result does not depend on how the text was cut into pieces: a rule decides by what it has read and,
//! where that is not enough, holds the text back until it has. Only what may be the beginning of a secret
//! is held back, and no more than the longest known value, or `url::LONGEST` bytes. The names that
//! introduce a secret (`password=`, `-----BEGIN ...`) are shown and never held.
//!
//! Ordinary text is looked at once by a vectorised search for the words that a rule begins with, and the
//! rules sleep.

mod credentials;
mod literals;
mod pairs;
mod pem;
mod search;
mod url;
mod window;

use std::fmt;
use std::sync::Arc;

use literals::Literals;
use search::Words;
use window::{Hit, Rule, Window};

/// What stands in the place of a secret.
pub const MASK: &str = "[REDACTED]";

/// Known values shorter than this are not masked: they would be found everywhere.
pub const SHORTEST: usize = 4;

/// Bytes of text that has come out already and is kept to look back at.
const HISTORY: usize = 32;

/// Compiles what every [`Redactor`] shares, so that the first one does not have to.
pub fn prepare() {
    search::words();
}

/// Masks secrets in one stream, however it is cut into pieces. A clone shares the known values and begins
/// with a copy of the state.
#[derive(Clone)]
pub struct Redactor {
    literals: Arc<Literals>,
    /// `None`: no patterns.
    words: Option<&'static Words>,
    state: State,
}

#[derive(Clone, Default)]
struct State {
    window: Window,
    /// All before it has come out.
    emitted: usize,
    /// All before it has been searched for words.
    searched: usize,
    /// Where the present piece of a known value may begin.
    literal_from: usize,
    rules: Vec<Rule>,
    /// Secret bytes that have not come out yet, in no order.
    masks: Vec<(usize, usize)>,
    /// End of the last run whose mask has come out.
    masked_to: Option<usize>,
    /// Scratch: the words found in this piece, and its text in lower case.
    hits: Vec<Hit>,
    lower: Vec<u8>,
}

impl Redactor {
    /// Masks these values wherever they appear (of [`SHORTEST`] bytes or more; of a value of several lines
    /// also each long line), and what the built-in patterns find if `patterns`.
    pub fn new<S: AsRef<[u8]>>(secrets: &[S], patterns: bool) -> Redactor {
        let literals = Arc::new(Literals::new(secrets.iter().map(AsRef::as_ref)));
        let words = patterns.then(search::words);
        Redactor { literals, words, state: State::new(patterns) }
    }

    /// Takes the next piece; what can be told already is appended to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.words.is_none() && self.literals.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        self.state.window.append(input);
        self.look(false);
        self.state.emit(out);
    }

    /// The end of the stream: appends what was held back. The next piece begins a new stream.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.look(true);
        self.state.emit(out);
        self.state = State::new(self.words.is_some());
    }

    /// A whole stream, at its beginning and up to its end.
    fn whole(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        if !bytes.is_empty() {
            self.push(bytes, &mut out);
            self.finish(&mut out);
        }
        out
    }

    /// Bytes that are held back at present.
    pub fn held(&self) -> usize {
        self.state.window.end() - self.state.emitted
    }

    fn look(&mut self, end: bool) {
        let state = &mut self.state;
        if let Some(words) = self.words {
            words.find(&state.window, &mut state.searched, &mut state.lower, &mut state.hits);
            for rule in &mut state.rules {
                rule.run(&state.window, &state.hits, end, &mut state.masks);
            }
        }
        self.literals.find(&state.window, &mut state.literal_from, end, &mut state.masks);
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl State {
    fn new(patterns: bool) -> State {
        State { rules: if patterns { Rule::all() } else { Vec::new() }, ..State::default() }
    }

    /// Lets out what no rule holds back, masked.
    fn emit(&mut self, out: &mut Vec<u8>) {
        let held = self.rules.iter().filter_map(Rule::held_from).min();
        let to = held.unwrap_or(usize::MAX).min(self.literal_from).min(self.window.end());
        if to > self.emitted {
            self.masks.sort_unstable();
            let mut at = self.emitted;
            for &(start, end) in &self.masks {
                let (start, end) = (start.max(at), end.min(to));
                if start >= end {
                    continue;
                }
                out.extend_from_slice(self.window.slice(at, start));
                if self.masked_to != Some(start) {
                    out.extend_from_slice(MASK.as_bytes());
                }
                self.masked_to = Some(end);
                at = end;
            }
            out.extend_from_slice(self.window.slice(at, to));
            self.emitted = to;
            self.masks.retain(|&(_, end)| end > to);
        }
        self.window.forget(self.emitted.saturating_sub(HISTORY));
    }
}

/// All of these bytes, masked by values and patterns.
pub fn redact_all<S: AsRef<[u8]>>(secrets: &[S], bytes: &[u8]) -> Vec<u8> {
    Redactor::new(secrets, true).whole(bytes)
}

/// This text, masked by values and patterns.
pub fn redact_str<S: AsRef<[u8]>>(secrets: &[S], text: &str) -> String {
    let [text] = redact_texts(secrets, [text]);
    text
}

/// [`redact_str`] of several texts, each for itself; what the values need is made once.
pub fn redact_texts<S: AsRef<[u8]>, const N: usize>(secrets: &[S], texts: [&str; N]) -> [String; N] {
    let mut redactor = Redactor::new(secrets, true);
    texts.map(|text| {
        // A known value may be no whole text; what is left of a character then is shown as such.
        String::from_utf8(redactor.whole(text.as_bytes()))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    })
}

#[cfg(test)]
mod tests;
