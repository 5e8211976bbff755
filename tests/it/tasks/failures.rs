//! Tasks while the backend is away, when they panic, and beside a stall.

use idem_axum::BackendErrorKind;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_tests::Log;

use super::*;

fn stage() -> (ScriptedBackend<MemoryBackend>, Engine) {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    (backend.clone(), Engine::new(backend))
}

fn task(engine: &Engine) -> Task<Scope, idem_task::IdempotencyKey, Duration> {
    engine.task("ship").scope("orders").key("o-1").ttl(DAY).lease(LEASE)
}

#[tokio::test]
async fn in_an_outage_a_task_does_not_run_unless_it_says_so() {
    let (backend, engine) = stage();
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
    let refused = task(&engine)
        .run(|_| pending::<Result<(), Refused>>())
        .await
        .expect_err("away");
    assert_eq!(refused.kind(), RefusedKind::BackendUnavailable);
    assert!(matches!(refused.verdict(), Verdict::Redeliver(after) if !after.is_zero()));
    let unprotected = task(&engine).run_in_outage().run(|execution| async move {
        assert_eq!(execution.record_key(), None);
        assert_ne!(execution.downstream_key("x"), execution.downstream_key("x"));
        let steps = execution.steps();
        assert_eq!(
            steps
                .run("a", |_| async { Ok::<_, StepFailed>(1) })
                .await
                .expect("it runs"),
            1
        );
        Ok::<_, Refused>(7)
    });
    assert_eq!(unprotected.await.expect("it runs"), 7);
    backend.recover();
    let carrier = Carrier::default();
    let first = task(&engine).run(|execution| carrier.ship(execution)).await;
    assert_eq!(first.expect("shipped"), Parcel { number: 1, by: 1 });
}

#[tokio::test]
async fn a_panic_is_redelivered_and_runs_again() {
    let (_backend, engine) = stage();
    let panicked = task(&engine).run(|execution| async move {
        assert_ne!(execution.attempt(), 1, "on purpose");
        Ok::<_, Refused>(())
    });
    let panicked = panicked.await.expect_err("it panics");
    assert_eq!(panicked.kind(), RefusedKind::Panicked);
    assert!(matches!(panicked.verdict(), Verdict::Redeliver(_)));
    let carrier = Carrier::default();
    let again = task(&engine).run(|execution| carrier.ship(execution)).await;
    assert_eq!(again.expect("it was released"), Parcel { number: 1, by: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_told_and_a_panic_of_it_stops_none() {
    let (_backend, engine) = stage();
    let renewals = Arc::new(AtomicU32::new(0));
    let counted = renewals.clone();
    let told = task(&engine).on_renew(move || {
        assert_ne!(counted.fetch_add(1, Ordering::SeqCst), 1, "on purpose");
    });
    let ran = told.run(|_| async {
        tokio::time::sleep(LEASE * 3).await;
        Ok::<_, Refused>(())
    });
    ran.await.expect("it keeps its lease");
    assert!(renewals.load(Ordering::SeqCst) >= 6, "{renewals:?}");
}

#[tokio::test]
async fn as_many_tasks_run_as_the_engine_allows() {
    let engine = Engine::new(MemoryBackend::new()).with_max_in_flight(1);
    let nested = engine.clone();
    let outer = task(&engine).run(move |_| async move {
        let inner = nested.task("inner").global().key("k").ttl(DAY);
        let busy = inner
            .run(|_| pending::<Result<(), Refused>>())
            .await
            .expect_err("one runs");
        assert_eq!(busy.kind(), RefusedKind::TooBusy);
        Ok::<_, Refused>(())
    });
    outer.await.expect("it runs");
}

#[tokio::test]
async fn a_task_is_one_line_in_the_log_and_one_outcome() {
    let (log, _guard) = Log::listen(tracing::Level::DEBUG);
    let (_backend, engine) = stage();
    for _ in 0..2 {
        let carrier = Carrier::default();
        task(&engine)
            .run(|execution| carrier.ship(execution))
            .await
            .expect("shipped");
    }
    let lines = log.text();
    assert!(
        lines.contains(
            r#"idempotent{operation="task ship" scope=orders idempotency_key=o-1 attempt=1 outcome="executed"}"#
        ),
        "{lines}"
    );
    assert_eq!(lines.matches("an idempotent task has ended").count(), 2, "{lines}");
    assert!(lines.contains(r#"outcome="replayed""#), "{lines}");
}
