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
    /// The clock of the backend call of this task.
    static CLOCK: Clock;
}

/// What a call's deadline is put off by.
#[derive(Default)]
pub(super) struct Clock {
    /// For the size of its payload.
    granted: Cell<Duration>,
    /// For what it has waited for that does not count.
    untimed: Cell<Duration>,
    /// How many such waits are going on.
    waits: Cell<u32>,
}

impl Clock {
    fn put_off(&self) -> Duration {
        self.granted.get().saturating_add(self.untimed.get())
    }
}

/// Grants the backend call that this is called in the time to move `bytes` of payload, on top of its deadline.
///
/// A [`Backend`](crate::Backend) calls it when it finds that a record's payload is large, before it moves it. It changes
/// nothing up to [`LARGE_PAYLOAD`], and outside of the engine's calls.
pub fn allow_time_for(bytes: usize) {
    let grant = |clock: &Clock| clock.granted.set(clock.granted.get().max(time_for(bytes)));
    // Outside of the engine's calls nothing bounds the backend.
    let _ = CLOCK.try_with(grant);
}

/// Waits for `waiting` while the clock of the backend call that this is called in stands still.
///
/// A [`Backend`](crate::Backend) that moves one large payload at a time waits for the payload's turn in it, so that the time
/// of a transfer starts with the transfer. It must not be used for a wait that may never end. Outside of the engine's calls
/// it changes nothing.
pub async fn untimed<F: Future>(waiting: F) -> F::Output {
    let _stopped = Stopped::now();
    waiting.await
}

/// While it is there, the clock stands still.
struct Stopped {
    /// `None` while another wait has stopped the clock before.
    since: Option<Instant>,
}

impl Stopped {
    fn now() -> Self {
        let waits = CLOCK.try_with(|clock| clock.waits.replace(clock.waits.get() + 1));
        Self {
            since: (waits == Ok(0)).then(Instant::now),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = CLOCK.try_with(|clock| {
            clock.waits.set(clock.waits.get().saturating_sub(1));
            let waited = self.since.map(|since| since.elapsed()).unwrap_or_default();
            clock.untimed.set(clock.untimed.get().saturating_add(waited));
        });
    }
}

/// Whether the clock of the call that this is called in stands still.
pub(super) fn is_stopped() -> bool {
    CLOCK.try_with(|clock| clock.waits.get() > 0).unwrap_or_default()
}

/// The time on top of a deadline in which `bytes` are moved.
pub(super) fn time_for(bytes: usize) -> Duration {
    if bytes <= LARGE_PAYLOAD {
        return Duration::ZERO;
    }
    Duration::from_micros(bytes.try_into().unwrap_or(u64::MAX))
}

/// Waits for `answering` until `deadline` and what it is put off by have passed; then resolves to the time that it had.
pub(super) fn bounded<F: Future>(deadline: Duration, answering: F) -> TaskLocalFuture<Clock, Bounded<F>> {
    let bounded = Bounded {
        answering,
        sleep: sleep(deadline),
        deadline,
        put_off: Duration::ZERO,
    };
    CLOCK.scope(Clock::default(), bounded)
}

pin_project! {
    pub(super) struct Bounded<F> {
        #[pin]
        answering: F,
        #[pin]
        sleep: Sleep,
        deadline: Duration,
        // By how much `sleep` ends later than at the deadline.
        put_off: Duration,
    }
}

impl<F: Future> Future for Bounded<F> {
    type Output = Result<F::Output, Duration>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(answer) = this.answering.poll(context) {
            return Poll::Ready(Ok(answer));
        }
        if is_stopped() {
            // The wait that stops the clock wakes this task when it ends.
            return Poll::Pending;
        }
        let put_off = CLOCK.try_with(Clock::put_off).unwrap_or_default();
        if let Some(more) = put_off.checked_sub(*this.put_off).filter(|more| !more.is_zero()) {
            *this.put_off = put_off;
            let until = this.sleep.deadline().checked_add(more);
            this.sleep.as_mut().reset(until.unwrap_or_else(Instant::now));
        }
        let time = || {
            this.deadline
                .saturating_add(CLOCK.try_with(|clock| clock.granted.get()).unwrap_or_default())
        };
        this.sleep.as_mut().poll(context).map(|()| Err(time()))
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

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_call_stands_still_while_it_waits_for_its_turn() {
        let deadline = Duration::from_secs(1);
        let call = |after| async move {
            sleep(Duration::from_millis(400)).await;
            untimed(sleep(Duration::from_mins(1))).await;
            sleep(Duration::from_millis(after)).await;
        };
        assert_eq!(bounded(deadline, call(500)).await, Ok(()));
        let asked = Instant::now();
        assert_eq!(bounded(deadline, call(700)).await, Err(deadline));
        assert_eq!(asked.elapsed(), Duration::from_secs(61));
    }
}
