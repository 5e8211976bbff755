//! The deadline of a backend call.
//!
//! Owns the rule that a large payload extends the deadline, by the time that a slow connection needs for the payload. The
//! engine knows the size of an outcome that it writes. Only the backend knows the size of a record that it reads, so the
//! backend asks for the time by [`allow_time_for`]. Does not own which calls are made.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

/// The largest payload, in bytes, that gets no time on top of the deadline: 64 KiB.
///
/// A larger payload gets one microsecond per byte, which is the time that a connection of 1 MB per second needs for it.
pub const LARGE_PAYLOAD: usize = 64 * 1024;

thread_local! {
    /// The clock of the backend call that this thread is polling.
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// How far a call's deadline is postponed.
#[derive(Clone, Copy, Default)]
struct Clock {
    /// By the size of the payload.
    granted: Duration,
    /// By the waits in [`untimed`] that have ended.
    untimed: Duration,
    /// The number of waits in [`untimed`] that have not ended.
    waits: u32,
    /// The number of backend calls around this one.
    depth: u32,
}

impl Clock {
    fn put_off(self) -> Duration {
        self.granted.saturating_add(self.untimed)
    }

    /// Changes the clock of the current backend call. Outside a call of the engine there is no clock, because there is no
    /// deadline.
    fn change<T>(change: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let mut clock = CLOCK.get()?;
        let changed = change(&mut clock);
        CLOCK.set(Some(clock));
        Some(changed)
    }
}

/// While this guard exists, the current thread polls the call to which `clock` belongs.
struct Polled<'a> {
    clock: &'a mut Clock,
    outer: Option<Clock>,
}

impl<'a> Polled<'a> {
    fn now(clock: &'a mut Clock) -> Self {
        let outer = CLOCK.get();
        clock.depth = outer.map_or(0, |outer| outer.depth + 1);
        CLOCK.set(Some(*clock));
        Self { clock, outer }
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        if let Some(clock) = CLOCK.replace(self.outer) {
            *self.clock = clock;
        }
    }
}

/// Extends the deadline of the current backend call by the time to move `bytes` of payload.
///
/// A [`Backend`](crate::Backend) calls this function when it finds that a record's payload is large, before it moves the
/// payload. The function has no effect up to [`LARGE_PAYLOAD`], and outside a call of the engine.
pub fn allow_time_for(bytes: usize) {
    Clock::change(|clock| clock.granted = clock.granted.max(time_for(bytes)));
}

/// Awaits `waiting`, and stops the clock of the current backend call meanwhile.
///
/// A [`Backend`](crate::Backend) that moves one large payload at a time awaits the payload's turn inside this function, so
/// that the time of a transfer starts with the transfer. Do not use it for a wait that may never end. Outside a call of the
/// engine, it only awaits.
pub async fn untimed<F: Future>(waiting: F) -> F::Output {
    let _stopped = Stopped::now();
    waiting.await
}

/// While this guard exists, the clock is stopped.
struct Stopped {
    /// `None` if the clock was stopped already, by another wait.
    since: Option<Instant>,
    /// The depth of the call whose clock this guard has stopped. The guard may be dropped while an outer call is polled, and
    /// must not change the outer call's clock.
    depth: Option<u32>,
}

impl Stopped {
    fn now() -> Self {
        let stopped = Clock::change(|clock| {
            clock.waits += 1;
            (clock.waits, clock.depth)
        });
        Self {
            since: stopped.filter(|(waits, _)| *waits == 1).map(|_| Instant::now()),
            depth: stopped.map(|(_, depth)| depth),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        Clock::change(|clock| {
            if Some(clock.depth) != self.depth {
                return;
            }
            clock.waits = clock.waits.saturating_sub(1);
            let waited = self.since.map(|since| since.elapsed()).unwrap_or_default();
            clock.untimed = clock.untimed.saturating_add(waited);
        });
    }
}

/// Whether the clock of the current backend call is stopped.
pub(super) fn is_stopped() -> bool {
    CLOCK.get().is_some_and(|clock| clock.waits > 0)
}

/// The time that a payload of `bytes` gets on top of the deadline.
pub(super) fn time_for(bytes: usize) -> Duration {
    if bytes <= LARGE_PAYLOAD {
        return Duration::ZERO;
    }
    Duration::from_micros(bytes.try_into().unwrap_or(u64::MAX))
}

/// Awaits `answering` until its deadline, which [`Clock`] may postpone. After the deadline, the error is the time that the
/// call had.
///
/// The timer is set when the first poll finds no answer, so that a call which is answered at once needs no timer.
pub(super) fn bounded<F: Future>(deadline: Duration, answering: F) -> Bounded<F> {
    Bounded {
        answering,
        clock: Clock::default(),
        sleep: None,
        deadline,
        put_off: Duration::ZERO,
    }
}

pin_project! {
    pub(super) struct Bounded<F> {
        #[pin]
        answering: F,
        clock: Clock,
        #[pin]
        sleep: Option<Sleep>,
        deadline: Duration,
        // How far `sleep` is postponed already.
        put_off: Duration,
    }
}

impl<F: Future> Future for Bounded<F> {
    type Output = Result<F::Output, Duration>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let polled = {
            let _polled = Polled::now(this.clock);
            this.answering.poll(context)
        };
        if let Poll::Ready(answer) = polled {
            return Poll::Ready(Ok(answer));
        }
        if this.sleep.is_none() {
            this.sleep.set(Some(sleep(*this.deadline)));
        }
        if this.clock.waits > 0 {
            // The wait that stops the clock wakes this task when it ends.
            return Poll::Pending;
        }
        let put_off = this.clock.put_off();
        let more = put_off.checked_sub(*this.put_off).filter(|more| !more.is_zero());
        let Some(mut sleep) = this.sleep.as_pin_mut() else {
            return Poll::Pending;
        };
        if let Some(more) = more {
            *this.put_off = put_off;
            let until = sleep.deadline().checked_add(more);
            sleep.as_mut().reset(until.unwrap_or_else(Instant::now));
        }
        let time = this.deadline.saturating_add(this.clock.granted);
        sleep.poll(context).map(|()| Err(time))
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

    #[tokio::test(start_paused = true)]
    async fn a_call_within_a_call_that_is_given_up_while_it_waits_leaves_the_other_clock_alone() {
        let second = Duration::from_secs(1);
        let outer = async {
            let inner = async {
                let within = untimed(sleep(Duration::from_mins(1)));
                tokio::select! {
                    _ = bounded(second, within) => {}
                    () = sleep(second * 5) => {}
                }
                sleep(second * 5).await;
            };
            untimed(inner).await;
        };
        assert_eq!(bounded(second, outer).await, Ok(()), "ten seconds that do not count");
    }
}
