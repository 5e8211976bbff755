//! Percent-escaping of one part of a record key, into ASCII that has no special meaning to any store.
//!
//! Owns the set of characters that are not escaped, and the check of a part's length.

use std::fmt::{self, Display, Write as _};

use super::{Fault, KeyError, MAX_PART_LEN, Part};

/// Appends `value` to `out`. Unreserved ASCII and `/` stay as they are; every other byte becomes `%XX`.
pub(super) fn escape(value: &(impl Display + ?Sized), part: Part, out: &mut String) -> Result<(), KeyError> {
    let mut escaper = Escaper { out, len: 0 };
    let written = write!(escaper, "{value}");
    let fault = match (written, escaper.len) {
        (_, len) if len > MAX_PART_LEN => Fault::TooLong,
        (Err(fmt::Error), _) => Fault::Unprintable,
        (Ok(()), 0) => Fault::Empty,
        (Ok(()), _) => return Ok(()),
    };
    Err(KeyError { part, fault })
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

pub(super) fn is_plain(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/')
}

struct Escaper<'a> {
    out: &'a mut String,
    len: usize,
}

impl fmt::Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.len = self.len.saturating_add(text.len());
        if self.len > MAX_PART_LEN {
            return Err(fmt::Error);
        }
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| !is_plain(byte)) {
            let (plain, other) = rest.split_at(at);
            self.out.push_str(plain);
            // Whole characters: either all bytes of a character are escaped, or none.
            let (character, after) = other.split_at(other.chars().next().map_or(0, char::len_utf8));
            for byte in character.bytes() {
                self.out.push('%');
                self.out
                    .extend([byte >> 4, byte & 0xF].map(|half| char::from(HEX[usize::from(half)])));
            }
            rest = after;
        }
        self.out.push_str(rest);
        Ok(())
    }
}
