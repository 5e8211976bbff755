//! What the expansion of `#[idempotent]` calls.
//!
//! Owns the traits that the compiler names where a value of the attribute does not fit. Does not own what a task is.

use super::{Engine, Task, TaskExt as _};

/// A task of the engine that an expression has.
pub fn task<T: HasEngine + ?Sized>(engine: &T, name: &'static str) -> Task {
    engine.task(name)
}

/// A value that `engine = …` takes. Implemented for everything that has an engine.
#[diagnostic::on_unimplemented(
    message = "`engine` takes an `Engine`, or what has one, and this is `{Self}`",
    label = "this has no `idem_task::Engine`",
    note = "name the field that has it, such as `engine = app.engine`"
)]
pub trait HasEngine: AsRef<Engine> {}

#[diagnostic::do_not_recommend]
impl<T: AsRef<Engine> + ?Sized> HasEngine for T {}

/// Says what type an async block has, in a branch that is never taken.
#[must_use]
pub fn never<T>() -> T {
    unreachable!("only its type is of use")
}

/// What `scope` is made of.
pub mod scope {
    use std::fmt::Display;

    use idem_core::Scope;

    /// A value that `scope = …` takes. Implemented for everything that is `Display`.
    #[diagnostic::on_unimplemented(
        message = "`scope` takes values that are `Display`, and `{Self}` is not",
        label = "this is not `std::fmt::Display`",
        note = "name a part of it, such as `scope = order.id`"
    )]
    pub trait ScopeValue: Display {}

    #[diagnostic::do_not_recommend]
    impl<T: Display + ?Sized> ScopeValue for T {}

    /// The scope of one value.
    pub fn of<T: ScopeValue + ?Sized>(value: &T) -> Scope {
        Scope::of(value)
    }

    /// The scope of several values together.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [Scope; N]) -> Scope {
        Scope::tuple(parts)
    }

    /// One key space for all callers.
    #[must_use]
    pub fn global() -> Scope {
        Scope::global()
    }
}

/// What `key` is made of.
pub mod key {
    use std::fmt::Display;

    use idem_core::IdempotencyKey;

    /// A value that `key = …` takes. Implemented for everything that is `Display`.
    #[diagnostic::on_unimplemented(
        message = "`key` takes values that are `Display`, and `{Self}` is not",
        label = "this is not `std::fmt::Display`",
        note = "name a part of it, such as `key = order.id`"
    )]
    pub trait KeyValue: Display {}

    #[diagnostic::do_not_recommend]
    impl<T: Display + ?Sized> KeyValue for T {}

    /// The key of one value.
    pub fn of<T: KeyValue + ?Sized>(value: &T) -> IdempotencyKey {
        IdempotencyKey::of(value)
    }

    /// The key of several values together.
    #[must_use]
    pub fn tuple<const N: usize>(parts: [IdempotencyKey; N]) -> IdempotencyKey {
        IdempotencyKey::tuple(parts)
    }
}
