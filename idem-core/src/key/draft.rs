//! Where the text of a record key is put together before its length is known.
//!
//! Owns one buffer a thread, so that a key is allocated once, where it stays.

use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static DRAFT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What `write` writes. It must not run code of others, which could come here itself.
pub(super) fn drafted<E>(write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<Arc<str>, E> {
    DRAFT.with_borrow_mut(|draft| {
        draft.clear();
        write(draft)?;
        Ok(draft.as_str().into())
    })
}
