//! Hash tables by record key.
//!
//! Owns how a key is hashed: once, when it is made, for every table that it is looked for in. Clients choose keys, so the
//! hash is of this process alone, and nobody can choose keys that meet in one place of a table.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use super::RecordKey;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A hash table by record key.
pub(crate) type ByRecord<T> = HashMap<RecordKey, T, BuildHasherDefault<AsIs>>;

/// Takes the hash of a key as it is.
#[derive(Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) fn hash(text: &str) -> u64 {
    HASHER.hash_one(text)
}

impl RecordKey {
    /// Which of so many parts of a table the key belongs to.
    pub(crate) fn shard(&self, shards: usize) -> usize {
        // Not the lowest bits: by those, the keys of one part are told apart.
        let [high, ..] = (self.hash >> 24).to_le_bytes();
        usize::from(high) % shards
    }
}

impl Hash for RecordKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
