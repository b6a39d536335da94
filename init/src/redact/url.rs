//! Passwords in URLs: `scheme://user:PASSWORD@host`. Scheme, user and host are shown.
//!
//! Whether `//name:` is followed by a password or a port shows only at the `@`, so what follows is held
//! back until it, or the end of the authority. A password may hold an `@`, so the last one counts; one
//! that was not encoded as it should be may hold `/`, `?` or `#`, which only end digits, as of a port.

use super::window::{Hit, Machine, Next, Window};

/// Bytes after the colon that are held back at most. What has not shown by then whether it is a password is taken
/// for one, but for digits; a token in a password's place may have a few thousand.
pub const LONGEST: usize = 4096;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    User,
    Password {
        start: usize,
        digits: bool,
        at: Option<usize>,
    },
    /// A password longer than what is held back: masked as it comes, to the end of the authority.
    Beyond,
}

#[derive(Debug, Clone, Default)]
pub struct Url {
    state: State,
}

impl Machine for Url {
    fn begin(&mut self, window: &Window, hit: Hit) -> bool {
        self.state = State::User;
        let before = hit.start.checked_sub(1).and_then(|place| window.at(place));
        before.is_some_and(|byte| byte.is_ascii_alphanumeric())
    }

    fn step(
        &mut self,
        _window: &Window,
        place: usize,
        byte: Option<u8>,
        masks: &mut Vec<(usize, usize)>,
    ) -> Next {
        match self.state {
            State::User => match byte {
                Some(b':') => {
                    self.state = State::Password { start: place + 1, digits: true, at: None };
                    Next::On
                }
                Some(byte) if ends_url(byte) || b"/?#@[]".contains(&byte) => Next::Done(place),
                Some(_) => Next::On,
                None => Next::Done(place),
            },
            State::Password { start, digits, at } => {
                let undecided = byte.is_some_and(|byte| !ends_url(byte));
                if undecided && !digits && at.is_none() && place - start >= LONGEST {
                    masks.push((start, place));
                    self.state = State::Beyond;
                    return beyond(place, byte, masks);
                }
                let goes_on = match byte {
                    None => false,
                    Some(byte) if ends_url(byte) || place - start >= LONGEST => false,
                    Some(b'/' | b'?' | b'#') => at.is_none() && !digits,
                    Some(_) => true,
                };
                if goes_on {
                    let digits = digits && byte.is_some_and(|b| b.is_ascii_digit());
                    let at = if byte == Some(b'@') { Some(place) } else { at };
                    self.state = State::Password { start, digits, at };
                    return Next::On;
                }
                if let Some(at) = at
                    && at > start
                {
                    masks.push((start, at));
                }
                // The colon before the password, or one behind the `@`, may belong to another `://`.
                Next::Done(at.unwrap_or(start - 1))
            }
            State::Beyond => beyond(place, byte, masks),
        }
    }

    fn held_from(&self) -> Option<usize> {
        if let State::Password { start, .. } = self.state { Some(start) } else { None }
    }
}

/// Masks on behind what was longer than a password is held.
fn beyond(place: usize, byte: Option<u8>, masks: &mut Vec<(usize, usize)>) -> Next {
    match byte {
        Some(byte) if byte != b'@' && !ends_url(byte) => {
            match masks.last_mut() {
                Some(last) if last.1 == place => last.1 += 1,
                _ => masks.push((place, place + 1)),
            }
            Next::On
        }
        _ => Next::Done(place),
    }
}

fn ends_url(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7F || b"\"'`<>".contains(&byte)
}
