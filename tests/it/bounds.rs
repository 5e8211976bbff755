//! Bounds on what runs again, on how long a handler runs, and on how many run at once: over HTTP, on each backend, in both forms.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use axum::{Extension, Router};
use idem_axum::{
    AfterCrash, Backend, Compared, Execution, Idempotency, IdempotencyLayer, MemoryBackend, Policy, RedisBackend,
    Scoped, idempotent,
};
use idem_core::{Acquisition, Claim, ClaimPolicy, Fingerprint, IdempotencyKey, RecordKey, Scope};
use idem_tests::{Answer, App, Call, PATIENCE, PostgresServer, RedisServer, Service, SqliteFile, in_time};
use reqwest::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What the handlers of a service share with its test.
#[derive(Clone)]
struct Stage {
    running: Arc<AtomicUsize>,
    /// The most that have run at once.
    most: Arc<AtomicUsize>,
    /// Has one permit for each handler that has started to hang.
    hanging: Arc<Semaphore>,
    /// Each handler that is held takes one, for good.
    passes: Arc<Semaphore>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            running: Arc::default(),
            most: Arc::default(),
            hanging: Arc::new(Semaphore::new(0)),
            passes: Arc::new(Semaphore::new(0)),
        }
    }
}

/// Counts a handler as running until dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Attempt = (StatusCode, String);

async fn attempt(execution: Execution) -> Attempt {
    (StatusCode::CREATED, execution.attempt().to_string())
}

/// Hangs in its first attempt.
async fn hang_once(execution: Execution, Extension(stage): Extension<Stage>) -> Attempt {
    if execution.attempt() == 1 {
        stage.hanging.add_permits(1);
        std::future::pending::<()>().await;
    }
    attempt(execution).await
}

#[idempotent(ttl = "1m", scope = global, name = "thrice", fingerprint = "none", max_attempts = 3)]
async fn thrice(execution: Execution) -> Attempt {
    attempt(execution).await
}

#[idempotent(ttl = "1m", scope = global, name = "soon", fingerprint = "none", rerun_within = "1h")]
async fn soon(execution: Execution) -> Attempt {
    attempt(execution).await
}

#[idempotent(ttl = "1m", scope = global, name = "hung", lease = "600ms", max_run = "800ms")]
async fn hung(execution: Execution, stage: Extension<Stage>) -> Attempt {
    hang_once(execution, stage).await
}

#[idempotent(ttl = "1m", scope = global, name = "hung-once", lease = "600ms", max_run = "800ms", after_crash = "refuse")]
async fn hung_once(execution: Execution, stage: Extension<Stage>) -> Attempt {
    hang_once(execution, stage).await
}

/// Runs until the test lets it pass.
#[idempotent(ttl = "1m", scope = global, name = "held")]
async fn held(stage: Extension<Stage>) -> StatusCode {
    hold(stage).await
}

async fn hold(Extension(stage): Extension<Stage>) -> StatusCode {
    let running = stage.running.fetch_add(1, Ordering::SeqCst) + 1;
    let _running = Running(stage.running.clone());
    stage.most.fetch_max(running, Ordering::SeqCst);
    let pass = stage.passes.acquire().await.expect("it is never closed");
    pass.forget();
    StatusCode::CREATED
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Attribute,
    Layer,
}

const FORMS: [Form; 2] = [Form::Attribute, Form::Layer];

fn layer(idempotency: &Idempotency, name: &'static str, policy: Policy) -> IdempotencyLayer<Scoped> {
    IdempotencyLayer::new(idempotency.clone(), Duration::from_mins(1))
        .with_policy(policy)
        .with_name(name)
        .scope_global()
}

/// The routes in either form, with the same options.
fn routes(form: Form, idempotency: &Idempotency) -> Router<App> {
    let uncompared = Policy::new().with_fingerprint(Compared::Nothing);
    let brief = Policy::new()
        .with_lease(Duration::from_millis(600))
        .with_max_run(Duration::from_millis(800));
    let layered = |bare: MethodRouter<App>, name, policy| bare.layer(layer(idempotency, name, policy));
    match form {
        Form::Attribute => Router::new()
            .route("/thrice", post(thrice))
            .route("/soon", post(soon))
            .route("/hung", post(hung))
            .route("/hung-once", post(hung_once))
            .route("/held", post(held)),
        Form::Layer => {
            let soon = uncompared.with_rerun_within(Duration::from_hours(1));
            let hung_once = brief.with_after_crash(AfterCrash::Refuse);
            Router::new()
                .route(
                    "/thrice",
                    layered(post(attempt), "thrice", uncompared.with_max_attempts(3)),
                )
                .route("/soon", layered(post(attempt), "soon", soon))
                .route("/hung", layered(post(hang_once), "hung", brief))
                .route("/hung-once", layered(post(hang_once), "hung-once", hung_once))
                .route("/held", layered(post(hold), "held", Policy::new()))
        }
    }
}

async fn serve(form: Form, idempotency: &Idempotency) -> (Service, Stage) {
    let stage = Stage::default();
    let routes = routes(form, idempotency).layer(Extension(stage.clone()));
    let service = Service::wrapped(idempotency.clone(), routes, |router| router).await;
    (service, stage)
}

fn call(service: &Service, path: &str, key: &str) -> Call {
    service.client.call(Method::POST, path).key(key)
}

/// Asks while the answer is that it is too early: the first one is in flight, or the backend slow.
async fn after_in_flight(service: &Service, path: &str, key: &str) -> Answer {
    loop {
        let answer = call(service, path, key).send().await;
        if !answer.headers.contains_key("retry-after") {
            return answer;
        }
    }
}

/// Leaves the claim of a process that died in this attempt, of a request that began so long ago.
async fn leave_dead(backend: &impl Backend, operation: &str, key: &str, attempt: u32, age: Duration) {
    let policy = ClaimPolicy::new(Duration::from_mins(1)).with_lease(ClaimPolicy::MIN);
    let first = Claim::first(Fingerprint::NONE, &policy);
    let dead = Claim {
        attempt,
        began_at: first.began_at.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
        ..first
    };
    let record = RecordKey::new(operation, &Scope::global(), &IdempotencyKey::of(&key)).expect("a valid key");
    let claimed = backend.claim(&record, &dead).await.expect("a healthy server");
    assert_eq!(claimed, Acquisition::Acquired);
}

async fn what_runs_again_is_bounded(form: Form, backend: impl Backend + Clone) {
    let (service, _) = serve(form, &Idempotency::new(backend.clone())).await;
    let minute = Duration::from_mins(1);
    let cases = [
        ("thrice", 2, minute * 600, Some("3")),
        ("thrice", 3, Duration::ZERO, None),
        ("soon", 9, minute * 30, Some("10")),
        ("soon", 1, minute * 90, None),
    ];
    for (operation, attempt, age, reruns) in cases {
        let key = format!("{operation}-{attempt}");
        leave_dead(&backend, operation, &key, attempt, age).await;
        let answer = after_in_flight(&service, &format!("/{operation}"), &key).await;
        match reruns {
            Some(attempt) => assert_eq!((answer.status, answer.text()), (StatusCode::CREATED, attempt)),
            None => assert_eq!(answer.problem(), "outcome-unknown", "{form:?} {key}"),
        }
    }
}

async fn a_hung_handler_is_bounded(form: Form, backend: impl Backend + Clone) {
    let idempotency = Idempotency::new(backend);
    let (service, stage) = serve(form, &idempotency).await;
    for path in ["/hung", "/hung-once"] {
        let mut client = JoinSet::new();
        client.spawn(call(&service, path, "k").try_send());
        stage.hanging.acquire().await.expect("it is never closed").forget();
        client.shutdown().await;
    }
    let answer = after_in_flight(&service, "/hung", "k").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::CREATED, "2"), "{form:?}");
    let answer = after_in_flight(&service, "/hung-once", "k").await;
    assert_eq!(answer.problem(), "outcome-unknown", "{form:?}");
    // The handlers hang on, and nobody waits for them.
    idempotency.drain().await;
}

/// Waits until so many handlers are running.
async fn until_running(stage: &Stage, count: usize) {
    while stage.running.load(Ordering::SeqCst) != count {
        tokio::task::yield_now().await;
    }
}

async fn so_many_run_at_once(form: Form, backend: impl Backend + Clone) {
    const CLIENTS: u32 = 200;
    let idempotency = Idempotency::new(backend).with_deadline(PATIENCE).with_max_in_flight(2);
    let (service, stage) = serve(form, &idempotency).await;
    let done = call(&service, "/thrice", "done").send().await;
    assert_eq!(done.status, StatusCode::CREATED);
    for round in 0..3 {
        let held = |name: &str, client: u32| call(&service, "/held", &format!("{round}-{name}-{client}"));
        // All give up as soon as two handlers run, whether or not their own does.
        let mut impatient: JoinSet<_> = (0..CLIENTS)
            .map(|client| held("impatient", client).try_send())
            .collect();
        until_running(&stage, 2).await;
        impatient.shutdown().await;

        let refused: JoinSet<_> = (0..CLIENTS).map(|client| held("patient", client).send()).collect();
        for _ in 0..20 {
            call(&service, "/thrice", "done").send().await.assert_replays(&done);
        }
        for answer in refused.join_all().await {
            assert_eq!(answer.problem(), "too-busy", "{form:?}");
            assert_eq!(answer.headers["retry-after"], "1");
        }
        assert_eq!(
            stage.running.load(Ordering::SeqCst),
            2,
            "their clients are gone, and they are not"
        );

        stage.passes.add_permits(2);
        until_running(&stage, 0).await;
    }
    stage.passes.add_permits(1);
    let answer = after_in_flight(&service, "/held", "last").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(stage.most.load(Ordering::SeqCst), 2, "{form:?}");
}

/// The same on each backend, in both forms.
macro_rules! on_each_backend {
    ($($test:ident)*) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    for form in FORMS {
                        in_time(super::$test(form, MemoryBackend::new())).await;
                    }
                }
            )*
        }

        mod redis {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    for form in FORMS {
                        let server = RedisServer::start().await;
                        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
                        in_time(super::$test(form, backend)).await;
                    }
                }
            )*
        }

        mod postgres {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    for form in FORMS {
                        let server = PostgresServer::shared().await;
                        let (backend, _schema) = server.backend().await;
                        in_time(super::$test(form, backend)).await;
                    }
                }
            )*
        }

        mod sqlite {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    for form in FORMS {
                        let file = SqliteFile::create().await;
                        in_time(super::$test(form, file.backend().await)).await;
                    }
                }
            )*
        }
    };
}

on_each_backend! {
    what_runs_again_is_bounded
    a_hung_handler_is_bounded
    so_many_run_at_once
}
