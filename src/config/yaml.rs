//! A YAML file as a tree with line numbers and the text of every scalar as it was written.
//!
//! A derived reader would stop at the first fault, and one without a schema would turn a secret of
//! digits into a number. So the tree is built from the parser's events, and types are read later.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// One value of the file.
#[derive(Clone)]
pub(super) struct Node {
    /// Counted from 1.
    pub line: usize,
    pub value: Value,
}

/// What stands there. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// The text, quoted or not.
    Scalar(String),
    List(Vec<Node>),
    /// In the file's order, duplicates included.
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    /// Of the key.
    pub line: usize,
    pub node: Node,
}

/// The file is no YAML, or uses of it what a configuration needs not.
pub(super) struct NotYaml {
    pub line: usize,
    pub what: String,
}

/// Collections that are open, innermost last.
enum Open {
    List(usize, Vec<Node>),
    Map { line: usize, entries: Vec<Entry>, key: Option<(String, usize)> },
}

/// The tree of a file that holds one document. An empty file is an empty map.
pub(super) fn parse(text: &str) -> Result<Node, NotYaml> {
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| NotYaml {
            line: error.marker().line(),
            what: format!("is not YAML: {} (column {})", error.info(), error.marker().col() + 1),
        })?;
        let line = span.start.line();
        let done = match event {
            Event::Scalar(text, style, _, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                Node { line, value: if null { Value::Null } else { Value::Scalar(text.into_owned()) } }
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(line, Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map { line, entries: Vec::new(), key: None });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(line, items)) => Node { line, value: Value::List(items) },
                Some(Open::Map { line, entries, .. }) => Node { line, value: Value::Map(entries) },
                None => continue,
            },
            Event::Alias(_) => {
                return Err(NotYaml {
                    line,
                    what: "uses a YAML alias (`*name`): write the value out".to_owned(),
                });
            }
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(NotYaml { line, what: "has a second document: keep one".to_owned() });
                }
                continue;
            }
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(done),
            Some(Open::List(_, items)) => items.push(done),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node: done }),
                None => match done.value {
                    Value::Scalar(text) => *key = Some((text, done.line)),
                    _ => {
                        return Err(NotYaml { line, what: "has a key that is no text".to_owned() });
                    }
                },
            },
        }
    }
    let empty = Node { line: 1, value: Value::Map(Vec::new()) };
    Ok(match root {
        None | Some(Node { value: Value::Null, .. }) => empty,
        Some(node) => node,
    })
}
