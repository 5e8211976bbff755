//! Type parameters with bounds and a `where`.

use axum::extract::{FromRef, State};
use axum::routing::{MethodRouter, post};
use idem_axum::idempotent;

trait Ledger: Clone + Send + Sync + 'static {
    fn name(&self) -> String;
}

#[derive(Clone)]
struct Paper;

impl Ledger for Paper {
    fn name(&self) -> String {
        "paper".into()
    }
}

impl FromRef<()> for Paper {
    fn from_ref((): &()) -> Self {
        Self
    }
}

#[idempotent(ttl = "1m", scope = ledger.name())]
async fn place_order<L, const COPIES: usize>(State(ledger): State<L>, body: String) -> String
where
    L: Ledger,
{
    format!("{} {COPIES} {body}", ledger.name())
}

pub(crate) fn route() -> MethodRouter {
    post(place_order::<Paper, 2>)
}
