//! What a retry is told of a run that has not ended as it should.

use super::*;
use crate::{StepError, StepErrorKind};

/// Lets a claim's owner disappear, and returns when a duplicate is told to ask again as time passes.
async fn asked_again_after(passed: &[Duration]) -> Vec<Duration> {
    let backend = MemoryBackend::new();
    let engine = Engine::new(backend.clone());
    let dead = Claim::first(REQUEST, &POLICY);
    let claimed = Backend::claim(&backend, &key(), &dead).await.expect("memory");
    assert_eq!(claimed, Acquisition::Acquired);
    let (mut told, mut now) = (Vec::new(), Duration::ZERO);
    for at in passed {
        advance(at.saturating_sub(now)).await;
        now = *at;
        match execute(&engine, never()).await {
            Got::Duplicate(Duplicate::InFlight(retry_after)) => told.push(retry_after),
            other => panic!("{other:?} after {at:?}"),
        }
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_of_an_owner_that_stopped_to_renew_is_told_when_the_lease_lapses() {
    // The lease is 30 seconds, and is renewed every 10.
    let after = [0, 10_000, 12_000, 13_000, 20_000, 28_500, 29_900].map(Duration::from_millis);
    let told = [1_000, 1_000, 1_000, 17_000, 10_000, 1_500, 1_000].map(Duration::from_millis);
    assert_eq!(asked_again_after(&after).await, told);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_refuses_retries_from_then_on() {
    let engine = Engine::new(MemoryBackend::new());
    let unknown = async {
        HandlerResult::Whole {
            answer: "500",
            outcome: RecordOutcome::complete(Completion::Unknown),
        }
    };
    assert_eq!(execute(&engine, unknown).await, executed("500"));
    assert_eq!(
        execute(&engine, never()).await,
        Got::Duplicate(Duplicate::OutcomeUnknown)
    );
    advance(LEASE).await;
    assert_eq!(
        execute(&engine, never()).await,
        Got::Duplicate(Duplicate::OutcomeUnknown)
    );
}

#[tokio::test]
async fn over_a_backend_without_steps_a_step_is_refused_before_its_body() {
    let store = Faulty::default();
    store.fault.keeps_no_steps.store(true, Ordering::SeqCst);
    let engine = Engine::new(store);
    let Ok(ClaimResult::Run(mut run)) = engine.claim(&key(), REQUEST, &POLICY).await else {
        panic!("it is the first one");
    };
    let steps = run.steps();
    let body = async |_| -> Result<(), StepError> { panic!("its body is called") };
    let refused = steps.run::<_, _, StepError>("hold", body).await;
    assert_eq!(
        refused.expect_err("there is no place").kind(),
        StepErrorKind::NotConfigured
    );
}
