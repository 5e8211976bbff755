//! The owner of a claim, as people read it.
//!
//! Owns the name's length and its default. The name is for logs and for operators: tokens, and not names, tell claims apart.

use std::fmt;
use std::sync::LazyLock;

/// The name of the process that holds a claim, at most [`Owner::MAX_LEN`] bytes of UTF-8.
///
/// By default it is the host's name and the process's number: `payments-7d9c5b9f6d-x2x4z:1`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    len: u8,
    bytes: [u8; Owner::MAX_LEN],
}

static THIS_PROCESS: LazyLock<Owner> = LazyLock::new(|| {
    let host = gethostname::gethostname();
    Owner::of_process(&host.to_string_lossy(), std::process::id())
});

impl Owner {
    /// The most bytes of a name.
    pub const MAX_LEN: usize = 32;

    /// The empty name.
    pub const NONE: Self = Self {
        len: 0,
        bytes: [0; Self::MAX_LEN],
    };

    /// An owner with this name. A longer name is cut at its start, because the end of a host's name is what tells it from
    /// others.
    ///
    /// Each control character becomes `_`: Postgres stores no text with a NUL, and a line break would end a line of the log.
    ///
    /// ```
    /// assert_eq!(idem_core::Owner::new("web\n1").as_str(), "web_1");
    /// ```
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = name.replace(char::is_control, "_");
        let mut start = name.len().saturating_sub(Self::MAX_LEN);
        while !name.is_char_boundary(start) {
            start += 1;
        }
        Self::exactly(name.as_bytes().get(start..).unwrap_or_default()).unwrap_or(Self::NONE)
    }

    /// The host's name and the number of this process.
    #[must_use]
    pub fn this_process() -> Self {
        *THIS_PROCESS
    }

    fn of_process(host: &str, process: u32) -> Self {
        Self::new(&format!("{host}:{process}"))
    }

    /// Reads a stored name; `None` if it is too long, or not UTF-8.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        std::str::from_utf8(name).ok()?;
        Self::exactly(name)
    }

    fn exactly(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX_LEN];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let len = u8::try_from(name.len()).ok()?;
        Some(Self { len, bytes })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..self.len.into()).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_keeps_its_end() {
        assert_eq!(Owner::new("web:1").as_str(), "web:1");
        assert_eq!(Owner::new("").as_str(), "");
        let long = Owner::of_process("payments-production-7d9c5b9f6d-x2x4z", 4_194_304);
        assert_eq!(
            long.as_str(),
            "roduction-7d9c5b9f6d-x2x4z:4194304".get(2..).unwrap_or_default()
        );
        assert_eq!(long.as_str().len(), Owner::MAX_LEN);
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let name = "é".repeat(17);
        assert_eq!(Owner::new(&name).as_str(), "é".repeat(16));
        let name = format!("{}x", "é".repeat(16));
        assert_eq!(Owner::new(&name).as_str(), format!("{}x", "é".repeat(15)));
    }

    #[test]
    fn a_control_character_becomes_an_underscore() {
        assert_eq!(Owner::new("a\0b\r\n\x1B\x7F\u{85}c").as_str(), "a_b_____c");
        let host = "payments-7d9c5b9f6d-x2x4z:419430";
        assert_eq!(host.len(), Owner::MAX_LEN);
        assert_eq!(
            Owner::new(&format!("\n{host}")).as_str(),
            host,
            "what is cut needs no room"
        );
    }

    #[test]
    fn stored_names_come_back_and_others_are_refused() {
        let owner = Owner::new("web:1");
        assert_eq!(Owner::from_bytes(owner.as_str().as_bytes()), Some(owner));
        assert_eq!(Owner::from_bytes(b""), Some(Owner::NONE));
        assert_eq!(Owner::from_bytes(&[b'x'; 33]), None);
        assert_eq!(Owner::from_bytes(b"\xFF"), None);
    }

    #[test]
    fn this_process_has_a_name() {
        assert!(!Owner::this_process().as_str().is_empty());
    }
}
