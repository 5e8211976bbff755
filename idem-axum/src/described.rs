//! The warning for a handler that utoipa describes without its idempotency.
//!
//! Compiled without the feature `utoipa` too, because this crate cannot always know whether the macros have their feature of
//! that name; in their own documentation tests it cannot.

/// Implemented for every type. The expansion names it for the type that `#[utoipa::path]` makes, where that type was made
/// without the handler's options.
pub trait DescribedAbove {
    /// Deprecated, so that naming it is a warning of the compiler's.
    #[deprecated(
        note = "this handler is described without its idempotency: write `#[utoipa::path]` below `#[idempotent]`, and by \
                that path"
    )]
    const CHECKED: () = ();
}

impl<T> DescribedAbove for T {}
