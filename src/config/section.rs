//! Reading values out of the tree: a fault is noted and the default taken, so that one pass finds
//! all of them; what nobody asked for is an unknown key.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    faults::Fault,
    size,
    yaml::{Entry, Node, Value},
};

/// What one loading gathers.
pub(super) struct Notes {
    /// The configuration file.
    pub file: PathBuf,
    pub faults: RefCell<Vec<Fault>>,
    pub warnings: RefCell<Vec<String>>,
    /// Every key that was asked for, list indices left out.
    pub asked: RefCell<BTreeSet<String>>,
    /// Those of them that have a range, found in the file or not.
    pub ranged: RefCell<BTreeSet<String>>,
}

impl Notes {
    pub fn new(file: &Path) -> Notes {
        Notes {
            file: file.to_owned(),
            faults: RefCell::default(),
            warnings: RefCell::default(),
            asked: RefCell::default(),
            ranged: RefCell::default(),
        }
    }

    /// A fault of a key that is not in the file, or of the file as a whole (empty key).
    pub fn fault(&self, file: &Path, key: &str, what: impl Into<String>) {
        let fault = Fault { file: file.to_owned(), line: None, key: key.to_owned(), what: what.into() };
        self.faults.borrow_mut().push(fault);
    }

    /// A fault of a line of the configuration file.
    pub fn fault_at(&self, line: usize, what: impl Into<String>) {
        let fault =
            Fault { file: self.file.clone(), line: Some(line), key: String::new(), what: what.into() };
        self.faults.borrow_mut().push(fault);
    }

    pub fn warn(&self, what: impl Into<String>) {
        self.warnings.borrow_mut().push(what.into());
    }

    /// A path as written: relative ones begin at the configuration file's folder.
    pub fn path(&self, text: &str) -> PathBuf {
        let beside = self.file.parent().unwrap_or(Path::new("")).join(text);
        std::path::absolute(&beside).unwrap_or(beside)
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct At<'n> {
    pub notes: &'n Notes,
    pub file: &'n Path,
    pub key: String,
    pub node: Node,
}

impl<'n> At<'n> {
    pub fn fault(&self, what: impl Into<String>) {
        self.notes.faults.borrow_mut().push(Fault {
            file: self.file.to_owned(),
            line: Some(self.node.line),
            key: self.key.clone(),
            what: what.into(),
        });
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.node.value {
            Value::Scalar(text) => Some(text),
            Value::Null => self.wrong("is empty: give a value or leave the key out"),
            Value::List(_) => self.wrong("is a list where one value is meant"),
            Value::Map(_) => self.wrong("is a group of keys where one value is meant"),
        }
    }

    fn wrong<T>(&self, what: &str) -> Option<T> {
        self.fault(what);
        None
    }

    /// Reads a value that is no secret: the text is shown if it is wrong.
    pub fn read<T>(&self, reader: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        match reader(text) {
            Ok(value) => Some(value),
            Err(what) => self.wrong(&format!("{} {what}", shown(text))),
        }
    }

    /// The values of a list; `None` if it is none.
    pub fn list(self) -> Option<Vec<At<'n>>> {
        let At { notes, file, key, node } = self;
        match node.value {
            Value::List(items) => Some(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(i, node)| At { notes, file, key: format!("{key}[{i}]"), node })
                    .collect(),
            ),
            _ => {
                At { notes, file, key, node }.wrong("is no list: write its values below it, each after `- `")
            }
        }
    }

    /// The keys of a group; `None` if it is none.
    pub fn section(self) -> Option<Section<'n>> {
        let At { notes, file, key, node } = self;
        match node.value {
            Value::Map(entries) => {
                let mut section = Section::empty(notes, file, key);
                section.line = Some(node.line);
                section.fill(entries);
                Some(section)
            }
            _ => At { notes, file, key, node }
                .wrong("is no group of keys: write them below it, each as `key: value`"),
        }
    }
}

/// A group of keys.
pub(super) struct Section<'n> {
    pub notes: &'n Notes,
    pub file: &'n Path,
    /// Empty: the top.
    pub path: String,
    line: Option<usize>,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
}

impl<'n> Section<'n> {
    /// The top of a file.
    pub fn top(notes: &'n Notes, file: &'n Path, root: Node) -> Section<'n> {
        let mut top =
            Section { notes, file, path: String::new(), line: None, entries: vec![], asked: vec![] };
        match root.value {
            Value::Map(entries) => top.fill(entries),
            _ => notes.fault(file, "", "is no configuration: it must be a list of `key: value` lines"),
        }
        top
    }

    fn empty(notes: &'n Notes, file: &'n Path, path: String) -> Section<'n> {
        Section { notes, file, path, line: None, entries: Vec::new(), asked: Vec::new() }
    }

    /// Takes the entries; of those with the same key the first.
    fn fill(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            match self.entries.iter().find(|other| other.key == entry.key) {
                None => self.entries.push(entry),
                Some(first) => {
                    let what =
                        format!("stands here again (first in line {}): keep one of the two", first.line);
                    self.fault_at(&entry.key, Some(entry.line), what);
                }
            }
        }
    }

    /// Path of a key of this group.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A fault of a key, given or not.
    pub fn fault(&self, key: &str, what: impl Into<String>) {
        let line = self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.node.line);
        self.fault_at(key, line.or(self.line), what);
    }

    fn fault_at(&self, key: &str, line: Option<usize>, what: impl Into<String>) {
        let fault = Fault { file: self.file.to_owned(), line, key: self.key(key), what: what.into() };
        self.notes.faults.borrow_mut().push(fault);
    }

    /// The value of a key; `None` if it is not given, or given as nothing.
    pub fn get(&mut self, key: &'static str) -> Option<At<'n>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match entry.node.value {
            Value::Null => None,
            _ => {
                Some(At { notes: self.notes, file: self.file, key: self.key(key), node: entry.node.clone() })
            }
        }
    }

    /// Whether a key has a value, without asking for it.
    pub fn given(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && !matches!(entry.node.value, Value::Null))
    }

    /// A group below; an empty one if it is not given.
    pub fn section(&mut self, key: &'static str) -> Section<'n> {
        let (notes, file, path) = (self.notes, self.file, self.key(key));
        self.get(key).and_then(At::section).unwrap_or_else(|| Section::empty(notes, file, path))
    }

    /// All keys of a group whose keys are free, each with its value.
    pub fn free(mut self) -> Vec<(String, At<'n>)> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_iter()
            .map(|Entry { key, node, .. }| {
                let at = At { notes: self.notes, file: self.file, key: self.key(&key), node };
                (key, at)
            })
            .collect()
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        let at = self.get(key)?;
        let text = at.text()?;
        if text.is_empty() {
            at.fault("is empty: give a value or leave the key out");
            return None;
        }
        Some(text.to_owned())
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|at| at.read(size::boolean)).unwrap_or(default)
    }

    pub fn whole(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.within(key, default, range, size::whole, u64::to_string)
    }

    /// A whole number that counts things in memory.
    pub fn count(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let count = |text: &str| {
            size::whole(text)
                .and_then(|number| usize::try_from(number).map_err(|_| "is too large a number".to_owned()))
        };
        self.within(key, default, range, count, usize::to_string)
    }

    pub fn number(&mut self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        self.within(key, default, range, size::number, f64::to_string)
    }

    pub fn bytes(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.within(key, default, range, size::size, |bytes| size::show_size(*bytes))
    }

    /// A duration; default and range in seconds.
    pub fn time(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> Duration {
        let range = Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        let show = |duration: &Duration| size::show_duration(*duration);
        self.within(key, Duration::from_secs(default), range, size::duration, show)
    }

    /// A duration in whole seconds.
    pub fn seconds(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let time = self.time(key, default, range);
        if time.subsec_nanos() > 0 {
            self.fault(key, "has a fraction of a second: write whole seconds");
        }
        time.as_secs()
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
        reader: impl FnOnce(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> T {
        self.notes.ranged.borrow_mut().insert(without_indices(&self.key(key)));
        let checked = |text: &str| match reader(text)? {
            value if range.contains(&value) => Ok(value),
            _ => {
                Err(format!("is out of range: {} to {} is possible", show(range.start()), show(range.end())))
            }
        };
        self.get(key).and_then(|at| at.read(checked)).unwrap_or(default)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let pick = |text: &str| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("is none of {}", names.join(", "))
            })
        };
        self.get(key).and_then(|at| at.read(pick)).unwrap_or(default)
    }

    /// To be called when all was read: what nobody asked for is a fault.
    pub fn finish(self) {
        let mut asked = self.notes.asked.borrow_mut();
        asked.extend(self.asked.iter().map(|key| without_indices(&self.key(key))));
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let what = match nearest(&entry.key, &self.asked) {
                Some(meant) => format!("is no key that exists: did you mean `{meant}`?"),
                None if self.path.is_empty() => "is no key that exists: see docs/configuration.md".to_owned(),
                None => format!("is no key that exists here: there are {}", self.asked.join(", ")),
            };
            self.fault_at(&entry.key, Some(entry.line), what);
        }
    }
}

/// `controllers[1].keys[0].secret` as `controllers[].keys[].secret`.
fn without_indices(key: &str) -> String {
    key.chars().filter(|c| !c.is_ascii_digit() || !key.contains('[')).collect()
}

/// A value as it may be shown: one line, cut.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// The known key that was most likely meant.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let far = 1 + key.len() / 4;
    known
        .iter()
        .map(|other| (distance(&key, other), *other))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// Edits from one word to the other (Levenshtein, with two neighbours swapped as one edit).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differ = usize::from(a[i - 1] != b[j - 1]);
            let mut edits = (rows[i - 1][j - 1] + differ).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(rows[i - 2][j - 2] + 1);
            }
            row.push(edits);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_and_none_where_none_is_near() {
        let known = ["port", "hmac_secret", "allowed_images", "default_image"];
        assert_eq!(nearest("prot", &known), Some("port"));
        assert_eq!(nearest("hmac-secret", &known), Some("hmac_secret"));
        assert_eq!(nearest("allowed_image", &known), Some("allowed_images"));
        assert_eq!(nearest("colour", &known), None);
    }
}
