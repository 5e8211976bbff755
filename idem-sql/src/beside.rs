//! The transactions of steps, beside the transaction of their handler or task and inside of each other.
//!
//! Owns which of them are refused, because one would wait for another that ends after it. Postgres gives each of them a session, and
//! the two wait for each other's rows. SQLite has one writer: not even the record of a step can be written beside a transaction.
//!
//! | the step | on Postgres | on SQLite |
//! |---|---|---|
//! | `transact`, and the handler's `Transaction` has begun | refused | refused |
//! | `transact` inside of the body of another one | refused | refused |
//! | `transact` beside another one, as in `join!` | runs | waits for its turn |
//! | `run`, and the handler's `Transaction` has begun | runs | refused |
//! | `run` inside of the body of a `transact` | runs | refused |
//!
//! A `Transaction` does not begin while a `transact` runs.

use std::future::Future;

use idem_core::{StepError, StepErrorKind};

use crate::slot::{State, TransactionSlot};

tokio::task_local! {
    /// The address of the slot of the run in which the body of a `transact` is polled. That run borrows it.
    static BODY_OF: usize;
}

/// A `transact` of a handler. While it is there, the handler's `Transaction` does not begin.
pub(crate) struct Transacting<'a>(&'a TransactionSlot);

impl TransactionSlot {
    /// Begins a `transact`, unless it would wait for a transaction of its own handler.
    pub(crate) fn start_transact(&self, name: &'static str) -> Result<Transacting<'_>, StepError> {
        let mut places = self.places();
        if self.is_in_body() || places.transaction.is_begun() {
            return Err(refused(name));
        }
        places.steps += 1;
        drop(places);
        Ok(Transacting(self))
    }

    /// Refuses a step whose record could not be written before a transaction of its own handler has ended.
    ///
    /// # Errors
    ///
    /// [`StepErrorKind::InTransaction`].
    pub fn check_run(&self, name: &'static str) -> Result<(), StepError> {
        let has_one_writer = self.backend().is_some_and(|backend| backend.kind().has_one_writer());
        if has_one_writer && (self.is_in_body() || self.places().transaction.is_begun()) {
            return Err(refused(name));
        }
        Ok(())
    }

    fn is_in_body(&self) -> bool {
        BODY_OF.try_with(|slot| *slot == self.address()).unwrap_or(false)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

fn refused(name: &'static str) -> StepError {
    tracing::error!(
        step = name,
        "a step would wait for a transaction of its own handler; run the steps before `Transaction::begin`, and none inside of the \
         body of a `transact`"
    );
    StepError::new(StepErrorKind::InTransaction, name)
}

impl Transacting<'_> {
    /// Runs the body of the `transact`.
    pub(crate) fn run<F: Future>(&self, body: F) -> impl Future<Output = F::Output> + use<F> {
        BODY_OF.scope(self.0.address(), body)
    }
}

impl Drop for Transacting<'_> {
    fn drop(&mut self) {
        self.0.places().steps -= 1;
    }
}

impl State {
    /// Whether the handler's transaction has begun, and has not been taken to its end.
    fn is_begun(&self) -> bool {
        match self {
            Self::Lent | Self::Ended(_) => true,
            Self::NotBegun | Self::Closed => false,
        }
    }
}
