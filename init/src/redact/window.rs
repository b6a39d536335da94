//! The part of the stream that is looked at, and what a rule is to it.

use std::collections::VecDeque;

use super::search::Word;
use super::{credentials, pairs, pem, url};

/// The bytes that have not come out yet, and some that have. Places are counted from the stream's start.
#[derive(Clone, Default)]
pub struct Window {
    bytes: Vec<u8>,
    base: usize,
}

impl Window {
    pub fn append(&mut self, input: &[u8]) {
        self.bytes.extend_from_slice(input);
    }

    pub fn end(&self) -> usize {
        self.base + self.bytes.len()
    }

    pub fn base(&self) -> usize {
        self.base
    }

    /// The byte at that place, if it is there.
    pub fn at(&self, place: usize) -> Option<u8> {
        self.bytes.get(place.checked_sub(self.base)?).copied()
    }

    /// The bytes between two places that are there.
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[from - self.base..to - self.base]
    }

    /// Drops what is before that place.
    pub fn forget(&mut self, before: usize) {
        if before > self.base {
            self.bytes.drain(..before - self.base);
            self.base = before;
        }
    }
}

/// A word that a rule begins with, found at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    pub start: usize,
    pub end: usize,
    pub word: Word,
}

/// What a rule makes of the byte at the place where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// On to the next byte.
    On,
    /// The same byte again, the state has changed.
    Again,
    /// Back to that place, with another state.
    Back(usize),
    /// The rule is done; words from that place on may begin it again.
    Done(usize),
}

/// A small machine that begins at a word and reads byte by byte from there.
pub trait Machine {
    /// Whether the rule begins here.
    fn begin(&mut self, window: &Window, hit: Hit) -> bool;
    /// Reads one byte; `None` is the end of the stream, where `On` means `Done`.
    fn step(
        &mut self,
        window: &Window,
        place: usize,
        byte: Option<u8>,
        masks: &mut Vec<(usize, usize)>,
    ) -> Next;
    /// What must not come out yet.
    fn held_from(&self) -> Option<usize>;
}

#[derive(Clone)]
enum Kind {
    Pairs(pairs::Pairs),
    Credentials(credentials::Credentials),
    KeyIds(credentials::KeyIds),
    Pem(pem::Pem),
    Url(url::Url),
}

/// A machine, and the words it has not looked at yet.
#[derive(Clone)]
pub struct Rule {
    kind: Kind,
    waiting: VecDeque<Hit>,
    /// Where it reads next; `None`: it sleeps.
    place: Option<usize>,
    /// Words before it do not count.
    resume: usize,
}

impl Rule {
    pub fn all() -> Vec<Rule> {
        let rule = |kind| Rule { kind, waiting: VecDeque::new(), place: None, resume: 0 };
        vec![
            rule(Kind::Pairs(pairs::Pairs::default())),
            rule(Kind::Credentials(credentials::Credentials::default())),
            rule(Kind::KeyIds(credentials::KeyIds::default())),
            rule(Kind::Pem(pem::Pem::default())),
            rule(Kind::Url(url::Url::default())),
        ]
    }

    fn machine(&mut self) -> &mut dyn Machine {
        match &mut self.kind {
            Kind::Pairs(m) => m,
            Kind::Credentials(m) => m,
            Kind::KeyIds(m) => m,
            Kind::Pem(m) => m,
            Kind::Url(m) => m,
        }
    }

    fn listens_to(&self, word: Word) -> bool {
        match self.kind {
            Kind::Pairs(_) => matches!(word, Word::Name | Word::Pwd | Word::Authorization),
            Kind::Credentials(_) => matches!(word, Word::Bearer | Word::Basic),
            Kind::KeyIds(_) => matches!(word, Word::KeyId | Word::Token),
            Kind::Pem(_) => word == Word::Begin,
            Kind::Url(_) => word == Word::Authority,
        }
    }

    pub fn held_from(&self) -> Option<usize> {
        self.place?;
        match &self.kind {
            Kind::Pairs(m) => m.held_from(),
            Kind::Credentials(m) => m.held_from(),
            Kind::KeyIds(m) => m.held_from(),
            Kind::Pem(m) => m.held_from(),
            Kind::Url(m) => m.held_from(),
        }
    }

    /// Reads what there is.
    pub fn run(&mut self, window: &Window, hits: &[Hit], end: bool, masks: &mut Vec<(usize, usize)>) {
        for &hit in hits {
            if self.listens_to(hit.word) {
                self.waiting.push_back(hit);
            }
        }
        loop {
            let Some(place) = self.place else {
                let Some(hit) = self.waiting.pop_front() else { return };
                if hit.start >= self.resume && self.machine().begin(window, hit) {
                    self.place = Some(hit.end);
                }
                continue;
            };
            let byte = window.at(place);
            if byte.is_none() && !end {
                break;
            }
            match self.machine().step(window, place, byte, masks) {
                Next::On if byte.is_none() => (self.place, self.resume) = (None, place),
                Next::On => self.place = Some(place + 1),
                Next::Again => {}
                Next::Back(to) => self.place = Some(to),
                Next::Done(resume) => (self.place, self.resume) = (None, resume),
            }
        }
        if self.held_from().is_none() {
            // It has read all of them and will not go back.
            self.waiting.clear();
        }
    }
}
