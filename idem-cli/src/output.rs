//! The terminal.
//!
//! Owns tables, colours, and that nothing from a record can do harm: control characters, and characters that change the order
//! of text, are shown escaped. Standard output has the result, and standard error what is said about it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use idem_core::RecordKey;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use unicode_width::UnicodeWidthStr as _;

use crate::args::{Color, Common};
use crate::connect::has_keys_in_cursors;
use crate::exit::Failure;
use crate::progress::{Progress, Scanned};

/// Where a command prints.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Output {
    pub(crate) is_json: bool,
    hashes_keys: bool,
    /// Whether a cursor shows no more than the records beside it.
    pub(crate) shows_cursors: bool,
    is_colored: bool,
    /// Whether the reader of standard output has gone. It has seen enough, and the command goes on without it.
    is_closed: bool,
    progress: Progress,
}

/// What a cell of a table means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = harmless(text.as_ref());
        Self { text, tone }
    }
}

impl Output {
    pub(crate) fn new(common: &Common, progress: Progress) -> Self {
        let allows_color =
            || io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Self {
            is_json: common.json,
            hashes_keys: common.hash_keys,
            shows_cursors: !(common.hash_keys && has_keys_in_cursors(common)),
            is_colored: match common.color {
                Color::Auto => allows_color(),
                Color::Always => true,
                Color::Never => false,
            },
            is_closed: false,
            progress,
        }
    }

    /// Whether nobody reads what is printed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The record key as it is shown: encoded, so that it can be copied, or with hashes.
    pub(crate) fn key(&self, key: &RecordKey) -> String {
        if self.hashes_keys {
            key.clone().hashed().shown().to_string()
        } else {
            key.to_string()
        }
    }

    /// The store's name of a record that cannot be read. It may be a record key, or have one in it.
    pub(crate) fn name(&self, name: &str) -> String {
        match RecordKey::from_encoded(name) {
            Some(key) => self.key(&key),
            None if self.hashes_keys => {
                let digest = Sha256::digest(name);
                let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
                digits.collect()
            }
            None => name.to_owned(),
        }
    }

    /// The key with the choice between its parts and their hashes.
    pub(crate) fn chosen(&self, key: &RecordKey) -> RecordKey {
        let key = key.clone();
        if self.hashes_keys { key.hashed() } else { key }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{}\n", harmless(text)))
    }

    /// Prints a value as JSON in one line.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(|error| Failure::new("no JSON form").because(&error))?;
        self.print(&format!("{}\n", harmless_json(&line)))
    }

    /// Prints rows below a header, each column as wide as its widest cell.
    pub(crate) fn table(&mut self, header: &[&str], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        let mut widths: Vec<_> = header.iter().map(|name| name.len()).collect();
        widths.resize(rows.first().map_or(widths.len(), Vec::len), 0);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        let header: Vec<_> = header.iter().map(|name| Cell::toned(name, Tone::Faint)).collect();
        let mut text = String::new();
        for row in [&header].into_iter().filter(|header| !header.is_empty()).chain(rows) {
            self.row(&mut text, row, &widths);
        }
        self.print(&text)
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.progress.end();
        if self.is_closed {
            return Ok(());
        }
        let mut stdout = io::stdout();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            printed => printed.map_err(|error| Failure::new("standard output cannot be written").because(&error)),
        }
    }

    /// Prints rows without a header.
    pub(crate) fn rows(&mut self, rows: &[Vec<Cell>]) -> Result<(), Failure> {
        self.table(&[], rows)
    }

    fn row(&self, text: &mut String, row: &[Cell], widths: &[usize]) {
        let last = row.len().saturating_sub(1);
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = width.saturating_sub(cell.text.width());
            text.push_str(&self.painted(&cell.text, cell.tone));
            if at < last {
                text.extend(std::iter::repeat_n(' ', padding + 2));
            }
        }
        text.push('\n');
    }

    fn painted(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.is_colored => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Says something about the result, on standard error.
    pub(crate) fn note(&mut self, text: &str) {
        self.progress.end();
        let _ = writeln!(io::stderr(), "{}", harmless(text));
    }

    /// Says why the command has failed.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.note(&format!("idem: {failure}"));
    }

    /// Shows how far a scan has come, if a person is there to see it.
    pub(crate) fn progress(&self, scanned: &Scanned) {
        self.progress.show(scanned);
    }
}

/// So many records, in words.
pub(crate) fn records(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} record{plural}")
}

/// The text with every character escaped that a terminal would obey, or that changes the order of the others.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for JSON, with its own escapes. Such characters are in its strings only.
fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_harmful(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` does not fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for a text of several lines.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.lines().map(|line| harmless(line) + "\n").collect()
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_other_text_is_left() {
        let table = [
            ("plain é 漢", "plain é 漢"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}evil\u{2066}", "\\u{202e}evil\\u{2066}"),
            ("\u{200b}\u{feff}", "\\u{200b}\\u{feff}"),
        ];
        for (text, shown) in table {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn the_same_is_escaped_in_json_and_read_back() {
        let text = "\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{e0041}é";
        let json = harmless_json(&serde_json::to_string(text).expect("JSON"));
        assert_eq!(json, r#""\u001b[2J\u007f\u009b31m\u202e\udb40\udc41é""#);
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }
}
