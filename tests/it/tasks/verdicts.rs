//! What a broker is told where a message would be lost, or would come for ever.

use std::error::Error;
use std::future::ready;

use idem_axum::BackendErrorKind;
use idem_axum::testing::{BackendCall, Fault, ScriptedBackend};
use idem_task::Batch;
use idem_task::sqlx::{self, Postgres};
use idem_tests::until;

use super::*;

type Failed = Box<dyn Error + Send + Sync>;

/// `ROLLBACK` as text commits nothing, so a message whose task failed after it has had no effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_rolled_back_by_itself_and_failed_is_not_acknowledged() {
    in_time(async {
        let server = PostgresServer::shared().await;
        let (backend, _schema) = server.backend().await;
        let engine = Engine::new(backend);
        let deliver = || {
            let task = engine.task("charge").global().key("o-1").ttl(DAY).lease(LEASE);
            task.run(async |execution: Execution| {
                let mut transaction = execution.transaction::<Postgres>().await.map_err(ShipError::from)?;
                let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut *transaction).await;
                rolled_back.expect("valid SQL");
                Err::<(), _>(ShipError::Carrier)
            })
        };
        assert_eq!(verdict(&deliver().await), Verdict::REDELIVER);
        let again = deliver().await;
        assert_ne!(verdict(&again), Verdict::Acknowledge, "{again:?}");
    })
    .await;
}

/// The outer task's own effect comes after the inner task, and has not happened.
#[tokio::test]
async fn a_refusal_of_an_inner_task_does_not_acknowledge_the_outer_one() {
    let engine = Engine::new(MemoryBackend::new());
    let inner = |engine: &Engine| {
        let task = engine.task("label").global().key("o-1").ttl(DAY).max_result(1);
        task.run(async |_| Ok::<_, Refused>("a long label".to_owned()))
    };
    inner(&engine).await.expect("it runs");
    let nested = engine.clone();
    let outer = engine.task("ship").global().key("o-1").ttl(DAY);
    let outer = outer.run(move |_| async move {
        let _label = inner(&nested).await?;
        Ok::<_, Failed>("shipped".to_owned())
    });
    let outer = outer.await;
    assert_ne!(verdict(&outer), Verdict::Acknowledge, "{outer:?}");
}

#[tokio::test]
async fn an_unprotected_task_goes_on_when_its_caller_is_gone() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    let engine = Engine::new(backend.clone());
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
    let (begun, go_on, ended) = (
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
        Arc::new(AtomicU32::new(0)),
    );
    let (is_begun, gate, has_ended) = (begun.clone(), go_on.clone(), ended.clone());
    let task = engine.task("ship").global().key("o-1").ttl(DAY).run_in_outage();
    let mut task = Box::pin(task.run(move |_| async move {
        is_begun.notify_one();
        gate.notified().await;
        has_ended.store(1, Ordering::SeqCst);
        Ok::<_, Refused>(())
    }));
    tokio::select! {
        _ = &mut task => unreachable!("the gate is closed"),
        () = begun.notified() => {}
    }
    drop(task);
    go_on.notify_one();
    in_time(engine.drain()).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_number_is_the_same_when_it_is_replayed() {
    let engine = Engine::new(MemoryBackend::new());
    let deliver = |number: f64| {
        let task = engine.task("price").global().key("o-1").ttl(DAY);
        task.run(move |_| async move { Ok::<_, Refused>(number) })
    };
    let first = deliver(31.245_270_191_439_438).await.expect("it runs");
    let again = deliver(0.0).await.expect("it is replayed");
    assert_eq!(first.to_bits(), again.to_bits(), "{first} and {again}");
}

fn task(engine: &Engine, key: &str) -> Task<Scope, idem_task::IdempotencyKey, Duration> {
    engine.task("ship").scope("orders").key(key).ttl(DAY).lease(LEASE)
}

#[tokio::test]
async fn a_final_error_keeps_its_verdict_under_a_small_max_result() {
    let engine = Engine::new(MemoryBackend::new());
    for delivery in 1..=2 {
        let failed = task(&engine, "o-1").max_result(8);
        let failed = failed.run(|_| ready(Err::<u32, _>(ShipError::NoSuchAddress))).await;
        assert_eq!(verdict(&failed), Verdict::SetAside, "delivery {delivery}");
    }
}

#[tokio::test]
async fn a_panic_of_an_unprotected_task_does_not_end_its_consumer() {
    let backend = ScriptedBackend::new(MemoryBackend::new());
    backend.on_every(BackendCall::Claim, Fault::Error(BackendErrorKind::Unavailable));
    let engine = Engine::new(backend);
    let running = task(&engine, "o-1").run_in_outage().run(|_| async {
        assert!(std::hint::black_box(false), "on purpose");
        Ok::<_, Refused>(())
    });
    let joined = tokio::spawn(running).await;
    let refused = joined.expect("the consumer goes on").expect_err("it panicked");
    assert_eq!(refused.kind(), RefusedKind::Panicked);
}

#[tokio::test]
async fn a_message_whose_work_panics_does_not_take_the_verdicts_of_the_others() {
    let engine = Engine::new(MemoryBackend::new());
    let batch = tokio::spawn(async move {
        let work = async |message: u32| {
            assert_ne!(message, 2, "a message that cannot be parsed");
            task(&engine, &message.to_string())
                .run(|_| ready(Ok::<_, Refused>(())))
                .await
        };
        Batch::of([1, 2, 3]).run(work).await
    });
    let verdicts = batch.await.expect("the consumer goes on");
    assert_eq!((verdicts[0], verdicts[2]), (Verdict::Acknowledge, Verdict::Acknowledge));
    assert_ne!(verdicts[1], Verdict::Acknowledge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_error_of_an_attempt_that_was_superseded_is_not_the_verdict() {
    let engine = Engine::new(MemoryBackend::new());
    let task = || engine.task("ship").global().key("o-1").ttl(DAY).lease(LEASE);
    let (begun, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (is_begun, opened) = (begun.clone(), gate.clone());
    let stalled = task().max_run(Duration::from_millis(100)).run(move |_| async move {
        is_begun.notify_one();
        opened.notified().await;
        Err::<u32, _>(ShipError::NoSuchAddress)
    });
    let stalled = tokio::spawn(stalled);
    begun.notified().await;
    until("it is taken over", async || {
        let second = task()
            .wait(Duration::from_secs(10))
            .run(|execution| ready(Ok::<_, Refused>(execution.attempt())));
        second.await.is_ok()
    })
    .await;
    gate.notify_one();
    let first = stalled.await.expect("no panic");
    let third = task().run(|_| pending::<Result<u32, Refused>>()).await;
    assert_eq!(third.expect("its value"), 2);
    assert_ne!(verdict(&first), Verdict::SetAside, "{first:?}");
}
