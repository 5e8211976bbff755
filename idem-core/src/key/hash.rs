//! Hash tables by record key.
//!
//! Owns the hash of a key. It is computed once, when the key is made, and used by every table. Clients choose keys, so the
//! hash is seeded at random in each process: a client cannot choose keys that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use super::RecordKey;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A hash table by record key.
pub(crate) type ByRecord<T> = HashMap<RecordKey, T, BuildHasherDefault<AsIs>>;

/// A hasher that returns the key's own hash unchanged.
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
    /// The shard of a table that the key belongs to, out of `shards`.
    pub(crate) fn shard(&self, shards: usize) -> usize {
        // Not from the lowest bits: the hash table inside the shard uses those.
        let [high, ..] = (self.hash >> 24).to_le_bytes();
        usize::from(high) % shards
    }
}

impl Hash for RecordKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
