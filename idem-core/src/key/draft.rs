//! Where the text of a record key is put together before its length is known.
//!
//! Owns one buffer a thread, so that a key is allocated once, where it stays.

use std::cell::Cell;
use std::sync::Arc;

/// The most bytes that a buffer keeps room for.
const KEPT: usize = 4096;

thread_local! {
    static DRAFT: Cell<String> = const { Cell::new(String::new()) };
}

/// What `write` writes. It may run code of others: where that comes here itself, it finds another buffer.
pub(super) fn drafted<E>(write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<Arc<str>, E> {
    let mut draft = DRAFT.take();
    draft.clear();
    let written = write(&mut draft).map(|()| draft.as_str().into());
    if draft.capacity() <= KEPT {
        DRAFT.set(draft);
    }
    written
}
