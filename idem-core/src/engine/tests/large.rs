//! Outcomes that are too large for the deadline of any call, over a line that takes its time.

use std::sync::atomic::AtomicBool;

use tokio::time::Instant;

use super::*;
use crate::{Changed, LARGE_PAYLOAD};

/// The memory backend behind a line on which payloads travel for a while.
#[derive(Clone, Debug, Default)]
struct Line {
    inner: MemoryBackend,
    /// How long a byte takes, in nanoseconds; a microsecond is what the engine grants.
    pace: Arc<AtomicU32>,
    is_cut: Arc<AtomicBool>,
    /// Whatever is asked is never answered.
    is_silent: Arc<AtomicBool>,
    /// Payloads that were sent.
    sent: Arc<AtomicU32>,
}

impl Line {
    async fn carry(&self, completion: &Completion) -> Result<(), BackendError> {
        if self.is_cut.load(Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::Unavailable, "cut"));
        }
        if let Completion::Stored(payload) = completion {
            self.sent.fetch_add(1, Ordering::SeqCst);
            let len = u32::try_from(payload.len()).expect("a small number");
            sleep(Duration::from_nanos(self.pace.load(Ordering::SeqCst).into()) * len).await;
        }
        self.speak().await;
        Ok(())
    }

    async fn speak(&self) {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

impl Backend for Line {
    async fn claim(&self, key: &RecordKey, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.inner.claim(key, claim).await
    }

    async fn take_over(&self, key: &RecordKey, lapsed: &Claim, claim: &Claim) -> Result<Acquisition, BackendError> {
        self.inner.take_over(key, lapsed, claim).await
    }

    async fn renew(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.speak().await;
        self.inner.renew(key, claim).await
    }

    async fn complete(
        &self,
        key: &RecordKey,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        self.carry(completion).await?;
        self.inner.complete(key, claim, completion, ttl).await
    }

    async fn release(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        self.inner.release(key, claim).await
    }

    async fn read(&self, key: &RecordKey) -> Result<Option<Record>, BackendError> {
        self.inner.read(key).await
    }

    async fn changed(&self, key: &RecordKey) -> Result<Changed, BackendError> {
        self.inner.changed(key).await
    }

    async fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

const TEN_MEGABYTES: usize = 10_000_000;

fn large(len: usize) -> HandlerResult<&'static str> {
    HandlerResult::Whole {
        answer: "large",
        outcome: RecordOutcome::complete(Completion::Stored(vec![7; len].into())),
    }
}

fn on_a_line(pace: u32) -> (Line, Engine) {
    let line = Line::default();
    line.pace.store(pace, Ordering::SeqCst);
    (line.clone(), Engine::new(line))
}

#[tokio::test(start_paused = true)]
async fn its_client_waits_for_the_deadline_and_recording_goes_on() {
    let (line, engine) = on_a_line(900);
    let asked = Instant::now();
    let got = execute(&engine, async { large(TEN_MEGABYTES) }).await;
    assert_eq!(got, answered("large", false));
    assert_eq!(asked.elapsed(), Engine::DEFAULT_DEADLINE);
    assert_eq!(execute(&engine, never()).await, IN_FLIGHT);
    engine.drain().await;
    assert!(asked.elapsed() < Duration::from_secs(10));
    let expected = Got::Duplicate(Duplicate::Replay(vec![7; TEN_MEGABYTES].into()));
    assert_eq!(execute(&engine, never()).await, expected);
    assert_eq!(line.sent.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn idem_12_what_does_not_come_through_is_given_up_once() {
    let (line, engine) = on_a_line(2_000);
    let asked = Instant::now();
    let got = execute(&engine, async { large(TEN_MEGABYTES) }).await;
    assert_eq!(got, answered("large", false));
    engine.drain().await;
    assert_eq!(
        asked.elapsed(),
        Duration::from_secs(11),
        "the deadline, and a second a megabyte"
    );
    assert_eq!(execute(&engine, never()).await, Got::Duplicate(Duplicate::NotStored));
    assert_eq!(line.sent.load(Ordering::SeqCst), 1);
}

/// Its lease is shorter than the line takes.
#[tokio::test(start_paused = true)]
async fn its_claim_is_held_while_it_is_on_its_way() {
    let (_line, engine) = on_a_line(900);
    let policy = POLICY.with_lease(Duration::from_secs(3));
    let got = execute_as(&engine, REQUEST, &policy, async { large(TEN_MEGABYTES) }).await;
    assert_eq!(got, answered("large", false));
    for _ in 0..7 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(execute_as(&engine, REQUEST, &policy, never()).await, IN_FLIGHT);
    }
    engine.drain().await;
    let expected = Got::Duplicate(Duplicate::Replay(vec![7; TEN_MEGABYTES].into()));
    assert_eq!(execute(&engine, never()).await, expected);
}

/// A try that fails at once takes nothing of the time that its size allows.
#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_its_time_costs_it_nothing() {
    let (line, engine) = on_a_line(900);
    line.is_cut.store(true, Ordering::SeqCst);
    let got = execute(&engine, async { large(LARGE_PAYLOAD + 1) }).await;
    assert_eq!(got, answered("large", false));
    sleep(Duration::from_mins(10)).await;
    line.is_cut.store(false, Ordering::SeqCst);
    engine.drain().await;
    let expected = Got::Duplicate(Duplicate::Replay(vec![7; LARGE_PAYLOAD + 1].into()));
    assert_eq!(execute(&engine, never()).await, expected);
}

/// Tries that the silence ends cost it nothing either.
#[tokio::test(start_paused = true)]
async fn idem_13_a_silence_longer_than_its_time_costs_it_nothing() {
    for len in [LARGE_PAYLOAD + 1, TEN_MEGABYTES] {
        let (line, engine) = on_a_line(900);
        line.is_silent.store(true, Ordering::SeqCst);
        let got = execute(&engine, async move { large(len) }).await;
        assert_eq!(got, answered("large", false));
        sleep(Duration::from_mins(10)).await;
        line.is_silent.store(false, Ordering::SeqCst);
        engine.drain().await;
        let expected = Got::Duplicate(Duplicate::Replay(vec![7; len].into()));
        assert_eq!(execute(&engine, never()).await, expected);
    }
}

/// The silence is longer than its ttl: as for a small outcome, nothing is left to record.
#[tokio::test(start_paused = true)]
async fn a_silence_longer_than_its_ttl_ends_the_tries() {
    let (line, engine) = on_a_line(900);
    line.is_silent.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    let policy = ClaimPolicy::new(Duration::from_mins(10));
    let got = execute_as(&engine, REQUEST, &policy, async { large(TEN_MEGABYTES) }).await;
    assert_eq!(got, answered("large", false));
    sleep(Duration::from_mins(10).saturating_sub(asked.elapsed())).await;
    line.is_silent.store(false, Ordering::SeqCst);
    engine.drain().await;
    assert!(asked.elapsed() < Duration::from_mins(11), "{:?}", asked.elapsed());
}
