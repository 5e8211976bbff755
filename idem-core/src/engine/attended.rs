//! A handler's run, while its client is there and after.
//!
//! Owns where a run is polled: in the task of its request, so that a request costs no task of its own, and from the
//! moment that the request is dropped in one that nobody can drop (IDEM-5).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What is left to do of a run after its answer is there.
pub(super) type RemainingWork = BoxFuture<'static, ()>;

/// A run that goes on in a task of its own when it is dropped.
pub(super) struct Attended<A: Send + 'static> {
    /// Until its answer is there.
    answering: Option<BoxFuture<'static, (A, Option<RemainingWork>)>>,
    runtime: Handle,
    running: TaskTracker,
    /// Counts the run among the running ones while it has no task.
    _counted: TaskTrackerToken,
}

impl<A: Send + 'static> Attended<A> {
    /// Attends a run that resolves to its answer and what is left to do after it.
    pub(super) fn new(
        answering: impl Future<Output = (A, Option<RemainingWork>)> + Send + 'static,
        runtime: Handle,
        running: TaskTracker,
    ) -> Self {
        Self {
            answering: Some(Box::pin(answering)),
            runtime,
            _counted: running.token(),
            running,
        }
    }
}

impl<A: Send + 'static> Future for Attended<A> {
    type Output = A;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<A> {
        // Taken out, so that one that panics is never polled again.
        let Some(mut answering) = self.answering.take() else {
            return Poll::Pending;
        };
        let Poll::Ready((answer, rest)) = answering.as_mut().poll(context) else {
            self.answering = Some(answering);
            return Poll::Pending;
        };
        if let Some(rest) = rest {
            self.running.spawn_on(rest, &self.runtime);
        }
        Poll::Ready(answer)
    }
}

impl<A: Send + 'static> Drop for Attended<A> {
    fn drop(&mut self) {
        if let Some(answering) = self.answering.take() {
            let unattended = async {
                let (answer, rest) = answering.await;
                // Its client has left, and the record is for its retry.
                drop(answer);
                if let Some(rest) = rest {
                    rest.await;
                }
            };
            self.running.spawn_on(unattended, &self.runtime);
        }
    }
}
