//! What the compiler says of a handler that utoipa describes without its idempotency.
//!
//! There without the feature `utoipa` too: whether the macros have theirs is not always for this crate to say, as in their
//! own documentation tests.

/// What an expansion finds at the type that `#[utoipa::path]` makes, if it has not told it of the options.
pub trait DescribedAbove {
    /// Named by the expansion alone, for what the compiler says of it.
    #[deprecated(
        note = "this handler is described without its idempotency: write `#[utoipa::path]` below `#[idempotent]`, and by \
                that path"
    )]
    const CHECKED: () = ();
}

impl<T> DescribedAbove for T {}
