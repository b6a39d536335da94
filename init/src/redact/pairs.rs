//! Values that are named as a secret: `password=x`, `"client_secret": "x"`, `Authorization: Scheme x`.
//!
//! The name may be part of a longer one (`DB_PASSWORD`, `secretAccessKey`). Between name and value there
//! may be quotes, brackets and spaces, and there is a `=` or a `:`. A quoted value goes to its quote or to
//! the line's end, another one to a space, a quote, or one of `,;&<>`.

use super::search::Word;
use super::window::{Hit, Machine, Next, Window};

/// Longest name of an authorization scheme, in bytes.
const SCHEME: usize = 24;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// In the rest of the name.
    #[default]
    Name,
    /// After the name, before `=` or `:`.
    Closing,
    /// After it.
    Separator {
        colon: bool,
    },
    /// Before the value.
    Opening {
        colon: bool,
        backslashes: usize,
    },
    /// In what may be the name of a scheme.
    Scheme {
        start: usize,
    },
    AfterScheme,
    Quoted {
        quote: u8,
        backslashes: usize,
        run: usize,
    },
    Open,
}

#[derive(Debug, Clone, Default)]
pub struct Pairs {
    state: State,
    authorization: bool,
    /// The variable of the present folder, if a path follows.
    folder: bool,
}

impl Pairs {
    /// The same byte again, in another state.
    fn turn(&mut self, state: State) -> Next {
        self.state = state;
        Next::Again
    }
}

impl Machine for Pairs {
    fn begin(&mut self, window: &Window, hit: Hit) -> bool {
        self.state = State::Name;
        self.authorization = hit.word == Word::Authorization;
        self.folder = hit.word == Word::Pwd && is_folder_variable(window, hit);
        true
    }

    fn step(&mut self, _: &Window, place: usize, byte: Option<u8>, masks: &mut Vec<(usize, usize)>) -> Next {
        let Some(byte) = byte else {
            if let State::Scheme { start } = self.state {
                masks.push((start, place));
            }
            return Next::Done(place);
        };
        let done = Next::Done(place);
        match self.state {
            State::Name if byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) => {
                self.folder = false;
                Next::On
            }
            State::Name => self.turn(State::Closing),
            State::Closing => match byte {
                b'"' | b'\'' | b'`' | b'\\' | b']' | b')' | b' ' | b'\t' => Next::On,
                b'=' | b':' => {
                    self.state = State::Separator { colon: byte == b':' };
                    Next::On
                }
                _ => done,
            },
            // `token::new` is a path.
            State::Separator { colon: true } if byte == b':' => done,
            State::Separator { .. } if b"=>~".contains(&byte) => {
                self.state = State::Separator { colon: false };
                Next::On
            }
            State::Separator { colon } => self.turn(State::Opening { colon, backslashes: 0 }),
            State::Opening { colon, backslashes } => match byte {
                b' ' | b'\t' => Next::On,
                b'\\' => {
                    self.state = State::Opening { colon, backslashes: backslashes + 1 };
                    Next::On
                }
                b'"' | b'\'' | b'`' => {
                    self.state = State::Quoted { quote: byte, backslashes, run: 0 };
                    Next::On
                }
                _ if ends_value(byte) => done,
                // What is inside has names of its own.
                b'{' | b'[' | b'(' if colon => done,
                b'/' if self.folder => done,
                _ if self.authorization => self.turn(State::Scheme { start: place }),
                _ => self.turn(State::Open),
            },
            State::Scheme { start } => {
                if (byte == b' ' || byte == b'\t') && place > start {
                    self.state = State::AfterScheme;
                    Next::On
                } else if place - start < SCHEME && (byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
                    Next::On
                } else {
                    // No scheme: the credential itself.
                    self.state = State::Open;
                    Next::Back(start)
                }
            }
            State::AfterScheme if byte == b' ' || byte == b'\t' => Next::On,
            State::AfterScheme => self.turn(State::Open),
            State::Quoted { quote, backslashes, run } => {
                let closes = if backslashes == 0 { run % 2 == 0 } else { run <= backslashes };
                if byte == b'\n' || byte == b'\r' || (byte == quote && closes) {
                    return done;
                }
                let run = if byte == b'\\' { run + 1 } else { 0 };
                self.state = State::Quoted { quote, backslashes, run };
                mask(masks, place);
                Next::On
            }
            State::Open if ends_value(byte) => done,
            State::Open => {
                mask(masks, place);
                Next::On
            }
        }
    }

    fn held_from(&self) -> Option<usize> {
        if let State::Scheme { start } = self.state { Some(start) } else { None }
    }
}

/// Masks one byte more.
pub fn mask(masks: &mut Vec<(usize, usize)>, place: usize) {
    match masks.last_mut() {
        Some((_, end)) if *end == place => *end = place + 1,
        _ => masks.push((place, place + 1)),
    }
}

fn ends_value(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7F || b"\"'`,;&<>".contains(&byte)
}

/// `PWD` or `OLDPWD`, as every shell has it in its environment.
fn is_folder_variable(window: &Window, hit: Hit) -> bool {
    if window.slice(hit.start, hit.end) != b"PWD" {
        return false;
    }
    let before = |n: usize| hit.start.checked_sub(n).and_then(|place| window.at(place));
    let free = |byte: Option<u8>| !byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    free(before(1))
        || ([before(3), before(2), before(1)] == [Some(b'O'), Some(b'L'), Some(b'D')] && free(before(4)))
}
