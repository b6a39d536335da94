//! `Bearer x`, `Basic x`, AWS access key ids and the agent's own tokens, wherever they stand.

use super::pairs::mask;
use super::search::Word;
use super::window::{Hit, Machine, Next, Window};

/// After so many bytes it is clear whether a word is a credential.
const DECIDED: usize = 24;
/// Bytes of an access key id after its first four.
const KEY_ID: usize = 16;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Gap,
    Deciding {
        start: usize,
    },
    Open,
}

/// The two schemes. Both are also words of prose, so what follows must not look like a word of prose.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    state: State,
    basic: bool,
}

impl Credentials {
    fn belongs(&self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"+/=".contains(&byte) || (!self.basic && b"._~-".contains(&byte))
    }

    fn is_credential(&self, token: &[u8]) -> bool {
        if self.basic {
            let has = |test: fn(&u8) -> bool| token.iter().any(test);
            let mixed = token.windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase());
            token.len() >= 8 && (mixed || has(|b| b.is_ascii_digit() || *b == b'=' || *b == b'+'))
        } else {
            let word = token.strip_suffix(b".").unwrap_or(token);
            let prose = word.len() > 1
                && word.len() < DECIDED
                && word[0].is_ascii_alphabetic()
                && word[1..].iter().all(u8::is_ascii_lowercase);
            !prose
        }
    }
}

impl Machine for Credentials {
    fn begin(&mut self, window: &Window, hit: Hit) -> bool {
        self.state = State::Gap;
        self.basic = hit.word == Word::Basic;
        let before = hit.start.checked_sub(1).and_then(|place| window.at(place));
        !before.is_some_and(|byte| byte.is_ascii_alphanumeric())
    }

    fn step(
        &mut self,
        window: &Window,
        place: usize,
        byte: Option<u8>,
        masks: &mut Vec<(usize, usize)>,
    ) -> Next {
        match self.state {
            State::Gap => match byte {
                Some(b' ' | b'\t') => Next::On,
                Some(byte) if self.belongs(byte) && is_space(window.at(place - 1)) => {
                    self.state = State::Deciding { start: place };
                    Next::Again
                }
                _ => Next::Done(place),
            },
            State::Deciding { start } => {
                if place - start < DECIDED && byte.is_some_and(|byte| self.belongs(byte)) {
                    return Next::On;
                }
                let token = window.slice(start, place);
                if !self.is_credential(token) {
                    return Next::Done(start);
                }
                masks.push((start, place));
                self.state = State::Open;
                Next::Again
            }
            State::Open => match byte {
                Some(byte) if self.belongs(byte) => {
                    mask(masks, place);
                    Next::On
                }
                _ => Next::Done(place),
            },
        }
    }

    fn held_from(&self) -> Option<usize> {
        if let State::Deciding { start } = self.state { Some(start) } else { None }
    }
}

fn is_space(byte: Option<u8>) -> bool {
    matches!(byte, Some(b' ' | b'\t'))
}

/// Hex digits of one of the agent's tokens after its first four bytes.
const TOKEN: usize = 64;

/// `AKIA` or `ASIA` and 16 capital letters and digits; `qca_` and 64 hex digits. The first four are shown: they tell
/// what it is, and so nothing is held back for a text that merely ends with an A.
#[derive(Debug, Clone, Default)]
pub struct KeyIds {
    start: usize,
    found: bool,
    token: bool,
}

impl KeyIds {
    fn belongs(&self, byte: u8) -> bool {
        byte.is_ascii_digit()
            || if self.token { (b'a'..=b'f').contains(&byte) } else { byte.is_ascii_uppercase() }
    }

    fn length(&self) -> usize {
        if self.token { TOKEN } else { KEY_ID }
    }
}

impl Machine for KeyIds {
    fn begin(&mut self, window: &Window, hit: Hit) -> bool {
        self.start = hit.end;
        self.found = false;
        self.token = hit.word == Word::Token;
        let word = window.slice(hit.start, hit.end);
        if self.token { word == b"qca_" } else { word.iter().all(u8::is_ascii_uppercase) }
    }

    fn step(&mut self, _: &Window, place: usize, byte: Option<u8>, masks: &mut Vec<(usize, usize)>) -> Next {
        if !byte.is_some_and(|byte| self.belongs(byte)) {
            return Next::Done(if self.found { place } else { self.start });
        }
        if self.found {
            mask(masks, place);
        } else if place + 1 - self.start == self.length() {
            self.found = true;
            masks.push((self.start, place + 1));
        }
        Next::On
    }

    fn held_from(&self) -> Option<usize> {
        (!self.found).then_some(self.start)
    }
}
