//! The buffer in which the text of a record key is built before its length is known.
//!
//! Owns one buffer per thread, so that each key costs one allocation of its final length.

use std::cell::Cell;
use std::sync::Arc;

/// The largest capacity that a buffer keeps between two keys, in bytes.
const KEPT: usize = 4096;

thread_local! {
    static DRAFT: Cell<String> = const { Cell::new(String::new()) };
}

/// Returns the text that `write` appends to the buffer.
///
/// `write` may run a user's `Display`, which may build a key itself. The inner call then finds an empty buffer.
pub(super) fn drafted<E>(write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<Arc<str>, E> {
    let mut draft = DRAFT.take();
    draft.clear();
    let written = write(&mut draft).map(|()| draft.as_str().into());
    if draft.capacity() <= KEPT {
        DRAFT.set(draft);
    }
    written
}
