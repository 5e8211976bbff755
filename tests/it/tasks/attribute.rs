//! The attribute on functions of each kind.

use std::fmt::Display;

use idem_task::idempotent;
use serde::de::DeserializeOwned;

use super::*;

#[derive(Clone)]
struct App {
    engine: Engine,
    carrier: Carrier,
}

impl App {
    fn new() -> Arc<Self> {
        let engine = Engine::new(MemoryBackend::new());
        Arc::new(Self {
            engine,
            carrier: Carrier::default(),
        })
    }

    #[idempotent(engine = self.engine, name = "ship", scope = global, key = order, ttl = "7d")]
    async fn ship(self: Arc<Self>, order: u32) -> Result<u32, ShipError> {
        Ok(order + self.carrier.0.fetch_add(1, Ordering::SeqCst))
    }

    #[idempotent(engine = self.engine, name = "ship-by-value", scope = global, key = order, ttl = "7d")]
    async fn ship_by_value(self, order: u32) -> Result<u32, ShipError> {
        Ok(order + self.carrier.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// Its result goes through `?`, `return`, and the attempt that the body is told.
#[idempotent(engine = app.engine, name = "pack", scope = (app.carrier.shipped(), "packs"), key = (order, box_.0), ttl = "7d",
    lease = "1s", in_flight = "wait", wait = "5s", max_attempts = 3, rerun_within = "1d", max_run = "1h", max_result = "1KiB",
    fingerprint = order, on_outage = "run")]
async fn pack(app: Arc<App>, order: u32, box_: (u32, u32)) -> Result<String, ShipError> {
    if order == 0 {
        return Err(ShipError::NoSuchAddress);
    }
    let execution = Execution::current().ok_or(ShipError::Carrier)?;
    assert_eq!(Execution::current().map(|execution| execution.attempt()), Some(1));
    assert!(
        execution
            .record_key()
            .is_some_and(|key| key.starts_with("task%20pack:")),
        "{execution:?}"
    );
    Ok(format!("{order} in {box_:?}, after {}", app.carrier.shipped()))
}

#[idempotent(engine = engine, name = "generic", scope = global, key = key, ttl = "1h")]
async fn generic<K, T>(engine: Engine, key: K, value: T) -> Result<T, Refused>
where
    K: Display + Send + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
{
    Ok(value)
}

#[idempotent(engine = app.engine, name = "never", scope = global, key = order, ttl = "1h", after_crash = "refuse")]
async fn refuses(app: Arc<App>, order: u32) -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    Err(format!("{order} after {}", app.carrier.0.fetch_add(1, Ordering::SeqCst)).into())
}

#[tokio::test]
async fn a_method_of_an_arc_and_a_method_by_value_run_once() {
    let app = App::new();
    for _ in 0..2 {
        assert_eq!(app.clone().ship(7).await.expect("shipped"), 7);
        assert_eq!(App::clone(&app).ship_by_value(7).await.expect("shipped"), 8);
    }
}

#[tokio::test]
async fn every_option_reaches_the_task() {
    let app = App::new();
    for _ in 0..2 {
        assert_eq!(
            pack(app.clone(), 1, (2, 3)).await.expect("packed"),
            "1 in (2, 3), after 0"
        );
    }
    let other = pack(app.clone(), 1, (4, 3)).await.expect("another key");
    assert_eq!(other, "1 in (4, 3), after 0");
    assert!(matches!(
        pack(app.clone(), 0, (1, 1)).await,
        Err(ShipError::NoSuchAddress)
    ));
    let again = pack(app, 0, (1, 1)).await.expect_err("final");
    assert_eq!(again.kind(), Some(RefusedKind::Failed(Verdict::SetAside)));
}

#[tokio::test]
async fn a_generic_function_runs_once_for_each_key() {
    let engine = Engine::new(MemoryBackend::new());
    assert_eq!(generic(engine.clone(), "a", 1).await.expect("it runs"), 1);
    assert_eq!(generic(engine.clone(), "a", 2).await.expect("it is kept"), 1);
    assert_eq!(generic(engine.clone(), 7, "x".to_owned()).await.expect("it runs"), "x");
    let other_type = generic(engine, 7, 2).await.expect_err("of another type");
    assert_eq!(other_type.kind(), RefusedKind::ResultUnreadable);
    assert_eq!(other_type.verdict(), Verdict::Acknowledge);
}

#[tokio::test]
async fn a_boxed_error_is_tried_again_and_a_refusal_in_it_keeps_its_verdict() {
    let app = App::new();
    for count in 0..2 {
        let failed = refuses(app.clone(), 1).await.expect_err("it fails");
        assert_eq!(failed.to_string(), format!("1 after {count}"));
        assert_eq!(failed.verdict(), Verdict::Redeliver(Duration::from_secs(1)));
    }
    let refused: Box<dyn std::error::Error + Send + Sync> =
        Box::new(generic(app.engine.clone(), "", 1).await.expect_err("an empty key"));
    assert_eq!(refused.verdict(), Verdict::SetAside);
}

#[tokio::test]
async fn an_execution_is_that_of_its_own_task() {
    assert!(Execution::current().is_none());
    let engine = Engine::new(MemoryBackend::new());
    let keys = engine
        .task("outer")
        .global()
        .key("k")
        .ttl(DAY)
        .run(move |outer| async move {
            let inner = engine.task("inner").global().key("k").ttl(DAY).run(|inner| async move {
                assert_eq!(
                    Execution::current().map(|current| current.downstream_key("x")),
                    Some(inner.downstream_key("x"))
                );
                Ok::<_, Refused>(inner.downstream_key("x"))
            });
            let inner = inner.await?;
            let current = Execution::current().map(|current| current.downstream_key("x"));
            assert_eq!(current, Some(outer.downstream_key("x")));
            Ok::<_, Refused>((outer.downstream_key("x"), inner))
        });
    let (outer, inner) = keys.await.expect("it runs");
    assert_ne!(outer, inner);
}
