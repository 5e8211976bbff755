//! Attempts with durable steps, with faults between the engine and the store.

use super::*;
use crate::steps::{StepError, StepErrorKind, Steps};

const REFUSING: ClaimPolicy = POLICY.with_after_crash(AfterCrash::Refuse);

async fn claim(engine: &Engine) -> Result<crate::engine::Run, Got> {
    match engine.claim(&key(), REQUEST, &REFUSING).await {
        Ok(ClaimResult::Run(run)) => Ok(run),
        Ok(ClaimResult::Duplicate { duplicate, .. }) => Err(Got::Duplicate(duplicate)),
        Ok(ClaimResult::TooBusy) => Err(Got::TooBusy),
        Err(error) => Err(Got::Failed(error.kind())),
    }
}

async fn step(steps: &Steps, name: &'static str) -> Result<u32, StepErrorKind> {
    let done = steps
        .run::<_, _, StepError>(name, async |_| Ok::<_, StepError>(1))
        .await;
    done.map_err(|error| error.kind())
}

/// An engine whose record is parked after a step.
async fn parked(store: &Faulty) -> Engine {
    let engine = Engine::new(store.clone());
    let mut run = claim(&engine).await.expect("the first");
    assert_eq!(step(&run.steps(), "hold").await, Ok(1));
    let ended = run.run(async { released("failed") }, |outcome| {
        assert_eq!(outcome, RunOutcome::Parked);
    });
    assert!(matches!(ended.await, RunAnswer::Answer { recorded: true, .. }));
    engine
}

async fn goes_on(engine: &Engine, attempt: u32) {
    let mut run = claim(engine).await.expect("it goes on");
    assert_eq!(run.claim().attempt, attempt);
    assert!(run.steps().is_recorded("hold").await.expect("no fault"));
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_whose_client_hangs_up_before_its_handler_starts_is_parked_again() {
    let engine = parked(&Faulty::default()).await;
    drop(claim(&engine).await.expect("it goes on"));
    engine.drain().await;
    goes_on(&engine, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_request_whose_take_over_is_not_answered_is_parked_again() {
    let store = Faulty::default();
    let engine = parked(&store).await;
    store.fault.hangs.store(true, Ordering::SeqCst);
    let failed = engine.claim(&key(), REQUEST, &REFUSING).await.expect_err("no answer");
    assert_eq!(failed.kind(), BackendErrorKind::Timeout);
    // The claim itself was not answered, so nothing is known of the record.
    assert!(failed.leaves_record_unknown());
    store.fault.hangs.store(false, Ordering::SeqCst);
    store.fault.take_overs_hang.store(true, Ordering::SeqCst);
    let failed = engine.claim(&key(), REQUEST, &REFUSING).await.expect_err("no answer");
    assert_eq!(failed.kind(), BackendErrorKind::Timeout);
    assert!(!failed.leaves_record_unknown(), "steps were seen");
    store.fault.take_overs_hang.store(false, Ordering::SeqCst);
    engine.drain().await;
    goes_on(&engine, 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_step_is_recorded_again_for_a_lease() {
    for (outage, expected) in [(LEASE / 2, Ok(1)), (LEASE * 2, Err(StepErrorKind::NotRecorded))] {
        let store = Faulty::default();
        let engine = Engine::new(store.clone());
        let mut run = claim(&engine).await.expect("the first");
        store.fault.steps_fail.store(true, Ordering::SeqCst);
        let steps = run.steps();
        let mend = async {
            sleep(outage).await;
            store.fault.steps_fail.store(false, Ordering::SeqCst);
        };
        let (done, ()) = futures_util::future::join(step(&steps, "hold"), mend).await;
        assert_eq!(done, expected, "{outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_may_be_on_its_way_is_not_sent_again_and_its_body_is_not_called_without_it() {
    let store = Faulty::default();
    let engine = Engine::new(store.clone());
    let mut run = claim(&engine).await.expect("the first");
    store.fault.steps_fail.store(true, Ordering::SeqCst);
    let body = async |_| -> Result<(), StepError> { unreachable!("the body was called") };
    let refused = run.steps().run::<_, _, StepError>("hold", body).at_most_once().await;
    assert_eq!(refused.expect_err("not started").kind(), StepErrorKind::Unavailable);
    assert_eq!(store.calls.steps.load(Ordering::SeqCst), 1);
}

/// It has asked what became of the body and was told "nothing"; meanwhile, another attempt was told the same.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_superseded_while_it_reconciled_does_not_call_the_body() {
    let store = Faulty::default();
    let engine = Engine::new(store.clone());
    let policy = POLICY;
    let attempt = async || match engine.claim(&key(), REQUEST, &policy).await {
        Ok(ClaimResult::Run(run)) => run,
        _ => panic!("it runs"),
    };
    let calls = Arc::new(AtomicU32::new(0));
    let mut first = attempt().await;
    let failing = async |_| Err::<u32, _>(StepError::new(StepErrorKind::Unavailable, "hold"));
    let failed = first
        .steps()
        .run::<_, _, StepError>("hold", failing)
        .at_most_once()
        .await;
    failed.expect_err("on purpose");
    advance(LEASE).await;
    let mut second = attempt().await;
    let stalls = async {
        advance(LEASE).await;
        let mut third = attempt().await;
        let body = async |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            Ok::<_, StepError>(3)
        };
        let steps = third.steps();
        let done = steps.run::<_, _, StepError>("hold", body).at_most_once();
        assert_eq!(done.reconcile(async || Ok(None)).await.expect("it runs"), 3);
    };
    let body = async |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        Ok::<_, StepError>(2)
    };
    let steps = second.steps();
    let done = steps.run::<_, _, StepError>("hold", body).at_most_once();
    let reconcile = async || {
        stalls.await;
        Ok(None)
    };
    let refused = done.reconcile(reconcile).await.expect_err("superseded");
    assert_eq!(refused.kind(), StepErrorKind::Superseded);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn steps_that_were_lost_before_the_attempt_ended_are_reported() {
    let store = Faulty::default();
    let engine = Engine::new(store.clone());
    let mut run = claim(&engine).await.expect("the first");
    assert_eq!(step(&run.steps(), "hold").await, Ok(1));
    // As by FLUSHALL.
    let gone = store.inner.release(&key(), run.claim()).await;
    assert_eq!(gone.expect("no I/O"), Fenced::Applied);
    let ended = run.run(async { released("failed") }, |outcome| {
        assert_eq!(outcome, RunOutcome::Superseded);
    });
    assert_eq!(
        ended.await,
        RunAnswer::Answer {
            answer: "failed",
            recorded: false
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_that_a_task_records_while_its_handler_ends_is_kept() {
    let store = Faulty::default();
    let engine = Engine::new(store.clone());
    let mut run = claim(&engine).await.expect("the first");
    let steps = run.steps();
    let claim_before = run.claim().clone();
    store.fault.slow.store(true, Ordering::SeqCst);
    // The step is recorded between the handler's end and the call that ends its claim.
    let recorded = crate::steps::StepStore::of(&store.inner)
        .record_step(&key(), &claim_before, "hold", &Bytes::from_static(b"1"))
        .await;
    assert_eq!(recorded.expect("no I/O"), Fenced::Applied);
    drop(steps);
    let _answer = run.run(async { released("failed") }, |_| {}).await;
    assert!(matches!(
        store.inner.read(&key()).await,
        Ok(Some(Record::Parked { .. }))
    ));
}
