//! Large request bodies that are equal share their bytes, while they come and while they are in memory.
//!
//! Duplicates that wait for the first one's answer each keep what their handler needs to run, which is the body. They are
//! equal, so one copy serves them all. What comes is compared with what is there, byte for byte, and a body that turns out to
//! be another one goes on by itself. Nothing is kept here: a body goes with the last request that holds it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri};

/// Smaller bodies are not worth the look.
const SMALLEST: u64 = 256 * 1024;

/// Larger ones are not put together.
const LARGEST: u64 = 64 * 1024 * 1024;

/// The bodies in memory, by a hash of what else is known of their requests. One that has another body is not found.
static BODIES: Mutex<BTreeMap<u64, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// A body of several requests.
#[derive(Debug)]
struct Shared {
    len: usize,
    coming: Mutex<Vec<u8>>,
    /// All of it, once it is there.
    whole: OnceLock<Vec<u8>>,
}

/// One request's body on its way.
#[derive(Debug)]
pub struct Gathering {
    alike: u64,
    shared: Arc<Shared>,
    /// How much of the shared bytes are this request's.
    read: usize,
}

/// One request's hold on a whole body.
struct Held(Arc<Shared>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.whole.get().map_or(&[], Vec::as_slice)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(len: usize, start: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            len,
            coming: Mutex::new(start),
            whole: OnceLock::new(),
        })
    }

    /// Takes in what one of the requests has got at this place; false if it is not what another one has.
    fn take_in(&self, at: usize, data: &[u8]) -> bool {
        let mut coming = lock(&self.coming);
        if let Some(whole) = self.whole.get() {
            return whole.get(at..).is_some_and(|rest| rest.starts_with(data));
        }
        let known = coming.get(at..).unwrap_or_default();
        let (same, more) = data.split_at(known.len().min(data.len()));
        if !known.starts_with(same) || coming.len() + more.len() > self.len {
            return false;
        }
        coming.extend_from_slice(more);
        if coming.len() == self.len {
            let _first = self.whole.set(std::mem::take(&mut coming));
        }
        true
    }

    /// The first bytes.
    fn start(&self, len: usize) -> Vec<u8> {
        let coming = lock(&self.coming);
        let bytes = self.whole.get().unwrap_or(&coming);
        bytes.get(..len).unwrap_or(bytes).to_vec()
    }
}

/// A hash of the parts of a request that are known before its body. Requests that are alike may have the same large body.
#[must_use]
pub fn alike(method: &Method, uri: &Uri, key: Option<&HeaderValue>) -> u64 {
    let mut hash = DefaultHasher::new();
    (method, uri, key).hash(&mut hash);
    hash.finish()
}

impl Gathering {
    /// Begins to put a body of `len` bytes together, if that is worth it. Requests that are `alike` may have the same one.
    pub fn start(alike: impl FnOnce() -> u64, len: u64) -> Option<Self> {
        if !(SMALLEST..=LARGEST).contains(&len) {
            return None;
        }
        let (alike, len) = (alike(), usize::try_from(len).ok()?);
        let mut bodies = lock(&BODIES);
        let found = bodies.get(&alike).and_then(Weak::upgrade);
        let shared = found.filter(|shared| shared.len == len).unwrap_or_else(|| {
            bodies.retain(|_, body| body.strong_count() > 0);
            let shared = Shared::new(len, Vec::new());
            bodies.insert(alike, Arc::downgrade(&shared));
            shared
        });
        let read = 0;
        Some(Self { alike, shared, read })
    }

    /// Takes in the next bytes.
    pub fn push(&mut self, data: &[u8]) {
        if !self.shared.take_in(self.read, data) {
            let mut start = self.shared.start(self.read);
            start.extend_from_slice(data);
            // More bytes than were announced are a body of their own, too.
            let shared = Shared::new(self.shared.len.max(start.len()), start);
            lock(&BODIES).insert(self.alike, Arc::downgrade(&shared));
            self.shared = shared;
            self.shared.take_in(self.read + data.len(), &[]);
        }
        self.read += data.len();
    }

    /// How many bytes of this request have come.
    #[must_use]
    pub fn gathered_len(&self) -> usize {
        self.read
    }

    /// What has come.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let is_whole = self.shared.whole.get().is_some_and(|whole| whole.len() == self.read);
        if is_whole {
            return Bytes::from_owner(Held(self.shared));
        }
        self.shared.start(self.read).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 256 * 1024;

    fn start(alike: u64) -> Gathering {
        Gathering::start(|| alike, LEN as u64).expect("it is large enough")
    }

    #[test]
    fn equal_bodies_share_their_bytes_from_the_first_on_for_as_long_as_one_is_held() {
        let (mut first, mut second) = (start(1), start(1));
        first.push(&[1; 1000]);
        second.push(&[1; 500]);
        second.push(&vec![1; LEN - 500]);
        first.push(&vec![1; LEN - 1000]);
        let mut third = start(1);
        third.push(&vec![1; LEN]);
        let [first, second, third] = [first, second, third].map(Gathering::finish);
        assert_eq!(first, vec![1; LEN]);
        assert_eq!((first.as_ptr(), first.as_ptr()), (second.as_ptr(), third.as_ptr()));
        drop((first, second, third));
        let _other = start(2);
        assert!(!lock(&BODIES).contains_key(&1), "it went with the last request");
    }

    #[test]
    fn bodies_that_differ_are_each_their_own() {
        let mut gathered = [start(3), start(3), start(3)];
        let mut expected = [vec![0; LEN], vec![0; LEN], vec![0; LEN]];
        expected[1][LEN / 2] = 1;
        expected[2][LEN - 1] = 2;
        for at in (0..LEN).step_by(1000) {
            for (body, expected) in gathered.iter_mut().zip(&expected) {
                body.push(&expected[at..LEN.min(at + 1000)]);
            }
        }
        assert_eq!(gathered.map(|body| body.finish().to_vec()), expected);
    }

    #[test]
    fn a_body_that_is_not_as_long_as_announced_is_as_it_came() {
        let mut short = start(4);
        short.push(&[1; 10]);
        let mut long = start(4);
        long.push(&vec![1; LEN]);
        long.push(&[2; 10]);
        assert_eq!(short.finish(), vec![1; 10]);
        assert_eq!(long.finish(), [vec![1; LEN], vec![2; 10]].concat());
    }

    #[test]
    fn small_and_huge_bodies_are_not_put_together() {
        assert!(Gathering::start(|| 5, SMALLEST - 1).is_none());
        assert!(Gathering::start(|| 5, LARGEST + 1).is_none());
    }
}
