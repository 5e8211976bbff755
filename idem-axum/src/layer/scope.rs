//! Whose key space a request to a layer belongs to.
//!
//! Owns the type states of [`IdempotencyLayer`](super::IdempotencyLayer): one without a scope is no layer.

use std::fmt;
use std::sync::Arc;

use axum::http::request::Parts;
use idem_core::Scope;

/// Finds the scope of a request; `None` where the request has none.
type ScopeOf = dyn Fn(&Parts) -> Option<Scope> + Send + Sync;

/// An [`IdempotencyLayer`](super::IdempotencyLayer) that has no scope yet.
#[derive(Clone, Copy, Debug)]
pub struct NoScope;

/// An [`IdempotencyLayer`](super::IdempotencyLayer) that has a scope.
#[derive(Clone)]
pub struct Scoped(Arc<ScopeOf>);

impl Scoped {
    pub(super) fn by(scope: impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static) -> Self {
        Self(Arc::new(scope))
    }

    pub(super) fn of(&self, head: &Parts) -> Option<Scope> {
        (self.0)(head)
    }
}

impl fmt::Debug for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").finish_non_exhaustive()
    }
}

/// Whether an [`IdempotencyLayer`](super::IdempotencyLayer) has a scope. Implemented for [`Scoped`] alone.
#[diagnostic::on_unimplemented(
    message = "an `IdempotencyLayer` needs a scope: whose key space does a request belong to?",
    label = "this layer has no scope",
    note = "write `.scope_extension(|user: &CurrentUser| user.tenant.clone())` for what an outer layer has authenticated, or \
            `.scope_global()` where all callers may share one key space"
)]
pub trait RequestScope: sealed::Sealed {
    #[doc(hidden)]
    fn scoped(&self) -> &Scoped;
}

impl RequestScope for Scoped {
    fn scoped(&self) -> &Scoped {
        self
    }
}

mod sealed {
    /// So that no other type says that it is a scope.
    pub trait Sealed {}

    impl Sealed for super::Scoped {}
}
