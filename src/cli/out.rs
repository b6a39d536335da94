//! Writing for people and programs: safe on a terminal, quiet when the reader has gone.

use std::io::{self, Write};

use serde::Serialize;

use super::fault::Fault;

/// Prints to standard output.
pub fn print(text: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Fault::of_write(&error))
}

/// Prints one object as one line of JSON.
pub fn print_json(object: &impl Serialize) -> Result<(), Fault> {
    let line = serde_json::to_string(object)
        .map_err(|error| Fault::new(super::exits::SOFTWARE, format!("cannot write JSON: {error}")))?;
    print(&(line + "\n"))
}

/// A word to the person at the terminal; lost in silence if standard error is gone.
pub fn note(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", safe(text)).as_bytes());
}

/// Text from elsewhere, made harmless for a terminal: control characters, and those that turn or hide
/// text, show as escapes.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hides {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The first `width` characters, with an ellipsis where something was cut.
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Rows as aligned columns; the last column is not padded. Every cell is made safe.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| safe(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_moves_the_cursor() {
        assert_eq!(safe("a\x1b[2Jb\r\n\u{9b}c\u{202e}d ü"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c\\u{202e}d ü");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["A".to_owned(), "LONG".to_owned()], vec!["bbb\x07".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A         LONG\nbbb\\u{7}  x\n");
        assert_eq!(clip("abcdef", 4), "abc…");
    }
}
