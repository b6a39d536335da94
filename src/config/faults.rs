//! What is wrong with a configuration: every fault at once, one line each.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One fault: where, what is wrong, what to do. Never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// Counted from 1; `None`: the file as a whole, or a key that is missing.
    pub line: Option<usize>,
    /// Path of the key, for example `controllers[1].keys[0].secret`; empty: the file as a whole.
    pub key: String,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// All faults of a configuration, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Sorted by file and line, those without a line last. `None` if there are none.
    pub(crate) fn of(main: &Path, mut faults: Vec<Fault>) -> Option<Faults> {
        if faults.is_empty() {
            return None;
        }
        faults.sort_by_key(|fault| (fault.file != main, fault.line.unwrap_or(usize::MAX)));
        faults.dedup();
        Some(Faults(faults))
    }

    /// A single fault of the file as a whole.
    pub(super) fn one(file: &Path, what: &str) -> Faults {
        Faults(vec![Fault { file: file.to_owned(), line: None, key: String::new(), what: what.to_owned() }])
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// How many, at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Faults {
    /// One line each, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
