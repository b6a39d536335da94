//! PEM private keys: all between `-----BEGIN ... PRIVATE KEY-----` and `-----END`.

use super::pairs::mask;
use super::window::{Hit, Machine, Next, Window};

/// Longest label, in bytes.
const LABEL: usize = 48;
/// Longest key, in bytes: a key whose end never comes must not hide everything after it. (RSA of 16,384
/// bits takes 13,000.)
const BODY: usize = 64 << 10;
const END: &[u8] = b"-----END";
const DASHES: usize = 5;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Label,
    Dashes(usize),
    Body,
    /// In what may be the end, of which so many bytes have come.
    End(usize),
}

#[derive(Debug, Clone, Default)]
pub struct Pem {
    state: State,
    label: Vec<u8>,
    body: usize,
    /// Where the dashes of the end begin.
    end: usize,
}

impl Machine for Pem {
    fn begin(&mut self, window: &Window, hit: Hit) -> bool {
        *self = Pem::default();
        window.slice(hit.start, hit.end) == b"-----BEGIN "
    }

    fn step(&mut self, _: &Window, place: usize, byte: Option<u8>, masks: &mut Vec<(usize, usize)>) -> Next {
        let Some(byte) = byte else {
            if let State::End(_) = self.state {
                masks.push((self.end, place));
            }
            return Next::Done(place);
        };
        match self.state {
            State::Label if byte == b'-' => {
                let private =
                    self.label.ends_with(b"PRIVATE KEY") || self.label.ends_with(b"PRIVATE KEY BLOCK");
                if !private {
                    return Next::Done(place);
                }
                self.state = State::Dashes(1);
                Next::On
            }
            State::Label if self.label.len() < LABEL && (byte.is_ascii_alphanumeric() || byte == b' ') => {
                self.label.push(byte);
                Next::On
            }
            State::Dashes(n) if byte == b'-' => {
                self.state = if n + 1 == DASHES { State::Body } else { State::Dashes(n + 1) };
                self.body = place;
                Next::On
            }
            State::Label | State::Dashes(_) => Next::Done(place),
            State::Body if place - self.body > BODY && byte.is_ascii() => Next::Done(place),
            State::Body if byte == b'-' => {
                self.end = place;
                self.state = State::End(1);
                Next::On
            }
            State::Body => {
                mask(masks, place);
                Next::On
            }
            State::End(n) if byte == END[n] => {
                if n + 1 == END.len() {
                    return Next::Done(place);
                }
                self.state = State::End(n + 1);
                Next::On
            }
            // A sixth dash: the first one was none of the end's.
            State::End(DASHES) if byte == b'-' => {
                mask(masks, self.end);
                self.end += 1;
                Next::On
            }
            State::End(_) => {
                masks.push((self.end, place));
                self.state = State::Body;
                Next::Again
            }
        }
    }

    fn held_from(&self) -> Option<usize> {
        if let State::End(_) = self.state { Some(self.end) } else { None }
    }
}
