//! A body that comes in pieces, as one.
//!
//! Owns that the only piece of a body, which most have, is not copied.

use bytes::Bytes;

#[derive(Default)]
pub(crate) struct Pieces {
    first: Bytes,
    /// All of them, where there is more than one.
    joined: Vec<u8>,
}

impl Pieces {
    pub(crate) fn len(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&self.first);
        }
        self.joined.extend_from_slice(&piece);
    }
}

impl From<Pieces> for Bytes {
    fn from(Pieces { first, joined }: Pieces) -> Self {
        if joined.is_empty() { first } else { joined.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&'static [u8]]) -> Bytes {
        let mut all = Pieces::default();
        for piece in pieces {
            all.push(Bytes::from_static(piece));
        }
        let len = all.len();
        let all = Bytes::from(all);
        assert_eq!(len, all.len());
        all
    }

    #[test]
    fn pieces_come_together_in_their_order() {
        assert_eq!(joined(&[]), "");
        assert_eq!(joined(&[b"", b"ab", b"", b"c", b"d"]), "abcd");
    }

    #[test]
    fn an_only_piece_is_not_copied() {
        let mut all = Pieces::default();
        let piece = Bytes::from_static(b"piece");
        let place = piece.as_ptr();
        all.push(piece);
        assert_eq!(Bytes::from(all).as_ptr(), place);
    }
}
