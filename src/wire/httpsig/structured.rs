//! Structured field values (RFC 8941), as much as `Signature-Input` and `Signature` need: a dictionary of
//! one member, inner lists of strings, byte sequences, parameters.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The longest field that is looked at, in bytes.
const MAX_FIELD: usize = 8_192;

/// A bare item, without its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bare {
    Integer(i64),
    Text(String),
    Token(String),
    Bytes(Vec<u8>),
    Bool(bool),
}

pub(super) type Params = Vec<(String, Bare)>;

impl Bare {
    /// As RFC 8941, section 4.1.3.1, writes it.
    pub(super) fn serialize(&self) -> String {
        match self {
            Bare::Integer(number) => number.to_string(),
            Bare::Text(text) => quote(text),
            Bare::Token(token) => token.clone(),
            Bare::Bytes(bytes) => format!(":{}:", STANDARD.encode(bytes)),
            Bare::Bool(value) => if *value { "?1" } else { "?0" }.to_owned(),
        }
    }
}

/// A string with its quotes; the text must be printable ASCII.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// An inner list and its parameters, in the canonical form that is signed.
pub(super) fn serialize_list(items: &[String], params: &Params) -> String {
    let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
    let mut text = format!("({})", items.join(" "));
    for (name, value) in params {
        text.push(';');
        text.push_str(name);
        if *value != Bare::Bool(true) {
            text.push('=');
            text.push_str(&value.serialize());
        }
    }
    text
}

/// Reads from the front; every method gives `None` where the text is something else.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    pub(super) fn new(field: &'a str) -> Option<Parser<'a>> {
        let field = field.trim_matches(' ');
        let plain = field.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        (plain && field.len() <= MAX_FIELD).then_some(Parser { rest: field })
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn eat(&mut self, what: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(what)?;
        Some(())
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    fn while_true(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.rest.bytes().position(|byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (found, rest) = self.rest.split_at(end);
        self.rest = rest;
        found
    }

    pub(super) fn key(&mut self) -> Option<&'a str> {
        let first = self.rest.bytes().next()?;
        (first.is_ascii_lowercase() || first == b'*').then(|| {
            self.while_true(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            })
        })
    }

    /// `("a" "b");x=1`: the strings have no parameters of their own.
    pub(super) fn inner_list(&mut self) -> Option<(Vec<String>, Params)> {
        self.eat("(")?;
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            if self.eat(")").is_some() {
                return Some((items, self.params()?));
            }
            items.push(self.string()?);
            if !self.rest.starts_with([' ', ')']) {
                return None;
            }
        }
    }

    fn params(&mut self) -> Option<Params> {
        let mut params = Params::new();
        while self.eat(";").is_some() {
            self.skip_spaces();
            let name = self.key()?;
            let value = if self.eat("=").is_some() { self.bare()? } else { Bare::Bool(true) };
            // The RFC lets the last one win; two meanings of one signature are refused here.
            if params.iter().any(|(known, _)| known == name) {
                return None;
            }
            params.push((name.to_owned(), value));
        }
        Some(params)
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.rest.bytes().next()? {
            b'"' => self.string().map(Bare::Text),
            b':' => self.bytes().map(Bare::Bytes),
            b'?' => {
                self.eat("?")?;
                if self.eat("1").is_some() {
                    Some(Bare::Bool(true))
                } else {
                    self.eat("0").map(|()| Bare::Bool(false))
                }
            }
            b'-' | b'0'..=b'9' => self.integer().map(Bare::Integer),
            first if first.is_ascii_alphabetic() || first == b'*' => {
                let token = self
                    .while_true(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Bare::Token(token.to_owned()))
            }
            _ => None,
        }
    }

    fn integer(&mut self) -> Option<i64> {
        let negative = self.eat("-").is_some();
        let digits = self.while_true(|byte| byte.is_ascii_digit());
        // A decimal is none of the parameters that are known.
        if !(1..=15).contains(&digits.len()) || self.rest.starts_with('.') {
            return None;
        }
        let number: i64 = digits.parse().ok()?;
        Some(if negative { -number } else { number })
    }

    fn string(&mut self) -> Option<String> {
        self.eat("\"")?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, next)) = chars.next() {
            match next {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    escaped @ ('"' | '\\') => text.push(escaped),
                    _ => return None,
                },
                other => text.push(other),
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        self.eat(":")?;
        let text = self.while_true(|byte| byte != b':');
        self.eat(":")?;
        STANDARD.decode(text).ok()
    }
}
