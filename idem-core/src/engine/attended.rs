//! Which task polls a handler's run.
//!
//! Owns the choice: while the client is connected, the request's own task polls the run, so that a request costs no extra
//! task. When the client hangs up, a task of the engine's takes over, and nothing can drop that task (IDEM-5). Does not own
//! the content of a run, nor how `drain` learns of its end: [`Work`](super::run::Work).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// The work of a run that is left when its client has the answer.
pub(super) type RemainingWork = BoxFuture<'static, ()>;

/// A run that continues in a task of its own when it is dropped.
pub(super) struct Attended<A: Send + 'static> {
    /// `None` after the run has answered.
    answering: Option<BoxFuture<'static, (A, Option<RemainingWork>)>>,
    runtime: Handle,
}

impl<A: Send + 'static> Attended<A> {
    /// Wraps a run that resolves to its answer and the remaining work.
    pub(super) fn new(
        answering: impl Future<Output = (A, Option<RemainingWork>)> + Send + 'static,
        runtime: Handle,
    ) -> Self {
        Self {
            answering: Some(Box::pin(answering)),
            runtime,
        }
    }
}

impl<A: Send + 'static> Future for Attended<A> {
    type Output = A;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<A> {
        // Taken out, so that a future that panics is never polled again.
        let Some(mut answering) = self.answering.take() else {
            return Poll::Pending;
        };
        let Poll::Ready((answer, rest)) = answering.as_mut().poll(context) else {
            self.answering = Some(answering);
            return Poll::Pending;
        };
        if let Some(rest) = rest {
            self.runtime.spawn(rest);
        }
        Poll::Ready(answer)
    }
}

impl<A: Send + 'static> Drop for Attended<A> {
    fn drop(&mut self) {
        if let Some(answering) = self.answering.take() {
            let unattended = async {
                let (answer, rest) = answering.await;
                // The client has hung up; its retry gets the answer from the record.
                drop(answer);
                if let Some(rest) = rest {
                    rest.await;
                }
            };
            self.runtime.spawn(unattended);
        }
    }
}
