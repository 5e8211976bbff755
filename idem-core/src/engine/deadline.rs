//! How long a backend call may take.
//!
//! Owns the rule that size and deadline belong together: what is large may take as long as a slow line needs for it. Of
//! an outcome, the engine knows the size; of a record that is read, only the backend does, and says so.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::{Instant, Sleep, sleep};

/// The largest payload, in bytes, that is moved within the deadline of any call: 64 KiB.
///
/// A larger one has, on top of the deadline, the time that a line of 1 MB a second takes for it.
pub const LARGE_PAYLOAD: usize = 64 * 1024;

tokio::task_local! {
    /// The time on top that the backend call of this task has asked for.
    static GRANTED: Cell<Duration>;
}

/// Grants the backend call that this is called in the time to move `bytes` of payload, on top of its deadline.
///
/// A [`Backend`](crate::Backend) calls it when it finds that a record's payload is large, before it moves it. It changes
/// nothing up to [`LARGE_PAYLOAD`], and outside of the engine's calls.
pub fn allow_time_for(bytes: usize) {
    let grant = |granted: &Cell<Duration>| granted.set(granted.get().max(time_for(bytes)));
    // Outside of the engine's calls nothing bounds the backend.
    let _ = GRANTED.try_with(grant);
}

/// The time on top of a deadline in which `bytes` are moved.
pub(super) fn time_for(bytes: usize) -> Duration {
    if bytes <= LARGE_PAYLOAD {
        return Duration::ZERO;
    }
    Duration::from_micros(bytes.try_into().unwrap_or(u64::MAX))
}

/// Waits for `answering` until `deadline` and what it is granted have passed; then resolves to how long it has waited.
pub(super) fn bounded<F: Future>(deadline: Duration, answering: F) -> TaskLocalFuture<Cell<Duration>, Bounded<F>> {
    let bounded = Bounded {
        answering,
        sleep: sleep(deadline),
        deadline,
        granted: Duration::ZERO,
    };
    GRANTED.scope(Cell::new(Duration::ZERO), bounded)
}

pin_project! {
    pub(super) struct Bounded<F> {
        #[pin]
        answering: F,
        #[pin]
        sleep: Sleep,
        deadline: Duration,
        granted: Duration,
    }
}

impl<F: Future> Future for Bounded<F> {
    type Output = Result<F::Output, Duration>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.answering.poll(context) {
            return Poll::Ready(Ok(answer));
        }
        let granted = GRANTED.try_with(Cell::get).unwrap_or_default();
        if let Some(more) = granted.checked_sub(*this.granted).filter(|more| !more.is_zero()) {
            *this.granted = granted;
            let until = this.sleep.deadline().checked_add(more);
            this.sleep.as_mut().reset(until.unwrap_or_else(Instant::now));
        }
        this.sleep.poll(context).map(|()| Err(*this.deadline + *this.granted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_may_take_longer_once_it_has_found_that_it_moves_much() {
        let deadline = Duration::from_secs(1);
        let call = |bytes| async move {
            sleep(Duration::from_millis(900)).await;
            allow_time_for(bytes);
            sleep(Duration::from_secs(4)).await;
        };
        assert_eq!(bounded(deadline, call(LARGE_PAYLOAD)).await, Err(deadline));
        assert_eq!(bounded(deadline, call(3_000_000)).await, Err(Duration::from_secs(4)));
        assert_eq!(bounded(deadline, call(5_000_000)).await, Ok(()));
    }
}
