//! The steps of attempts that follow each other, on the memory backend.

mod way;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tokio::time::advance;

use super::{Step, StepError, StepErrorKind, StepLimits, Steps};
use crate::engine::{ClaimResult, Duplicate, HandlerResult, RecordOutcome, Run, RunAnswer};
use crate::{
    AfterCrash, ClaimPolicy, Completion, Engine, Fingerprint, IdempotencyKey, MemoryBackend, RecordKey, Scope,
};

const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_mins(10)).with_lease(Duration::from_secs(30));
const REQUEST: Fingerprint = Fingerprint::new(1, [1; 32]);

/// The error of a handler.
#[derive(Debug)]
enum Failure {
    Step(StepError),
    Own,
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

impl Failure {
    fn kind(&self) -> Option<StepErrorKind> {
        match self {
            Self::Step(error) => Some(error.kind()),
            Self::Own => None,
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Hold {
    id: u32,
}

/// A map in an order, as a hash map has one by chance.
struct InOrder([&'static str; 2]);

impl Serialize for InOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.map(|name| (name, name.len())))
    }
}

/// A value that has no JSON form.
#[derive(Debug, Deserialize)]
struct Formless;

impl Serialize for Formless {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("on purpose"))
    }
}

fn key() -> RecordKey {
    RecordKey::new("pay", &Scope::global(), &IdempotencyKey::of("k")).expect("a valid key")
}

/// What an attempt does after its handler.
#[derive(Clone, Copy)]
enum End {
    Complete,
    Release,
    Panic,
}

/// An application with a counter of effects.
struct App {
    engine: Engine,
    backend: MemoryBackend,
    effects: AtomicU32,
}

impl App {
    fn new() -> Self {
        Self::with(StepLimits::default())
    }

    fn with(limits: StepLimits) -> Self {
        let backend = MemoryBackend::new();
        Self {
            engine: Engine::new(backend.clone()).with_step_limits(limits),
            backend,
            effects: AtomicU32::new(0),
        }
    }

    /// Claims the key, as one request does.
    async fn claim(&self, fingerprint: Fingerprint) -> Result<(Run, Steps), Duplicate> {
        match self.engine.claim(&key(), fingerprint, &POLICY).await.expect("no I/O") {
            ClaimResult::Run(mut run) => {
                let steps = run.steps();
                Ok((run, steps))
            }
            ClaimResult::Duplicate { duplicate, .. } => Err(duplicate),
            ClaimResult::TooBusy => unreachable!("there is no limit"),
        }
    }

    /// Runs an attempt whose handler is `handler`.
    async fn attempt<T>(&self, end: End, handler: impl AsyncFnOnce(&Self, &Steps) -> T) -> T {
        let ClaimResult::Run(mut run) = self.engine.claim(&key(), REQUEST, &POLICY).await.expect("no I/O") else {
            panic!("a duplicate runs");
        };
        let steps = run.steps();
        let done = handler(self, &steps).await;
        let ended = run.run(
            async move {
                let outcome = match end {
                    End::Complete => RecordOutcome::complete(Completion::NotStored),
                    End::Release => RecordOutcome::Release,
                    End::Panic => panic!("on purpose"),
                };
                HandlerResult::Whole { answer: (), outcome }
            },
            |_| (),
        );
        match (ended.await, end) {
            (RunAnswer::Answer { recorded: true, .. }, End::Complete | End::Release)
            | (RunAnswer::Panicked, End::Panic) => done,
            (answer, _) => panic!("{answer:?}"),
        }
    }

    #[expect(clippy::unused_async, reason = "the body of a step is async")]
    async fn effect(&self) -> Result<Hold, Failure> {
        let id = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Hold { id })
    }

    fn effects(&self) -> u32 {
        self.effects.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_recorded_step_returns_its_result_to_the_next_attempt_and_its_body_is_not_called() {
    let app = App::new();
    for (attempt, end) in [(1, End::Release), (2, End::Panic), (3, End::Complete)] {
        app.attempt(end, async |app, steps| {
            assert_eq!(steps.attempt(), attempt);
            assert_eq!(steps.is_recorded("hold").await.expect("no I/O"), attempt > 1);
            let hold = steps
                .run::<_, _, StepError>("hold", |_| app.effect())
                .await
                .expect("it runs");
            assert_eq!(hold, Hold { id: 1 });
            assert!(steps.is_recorded("hold").await.expect("no I/O"));
        })
        .await;
    }
    assert_eq!(app.effects(), 1);
    assert_eq!(app.claim(REQUEST).await.expect_err("it is done"), Duplicate::NotStored);
}

#[tokio::test]
async fn an_error_of_the_body_passes_through_and_is_not_recorded() {
    let app = App::new();
    let failed = app
        .attempt(End::Release, async |_, steps| {
            steps
                .run::<_, _, StepError>("hold", async |_| Err::<(), _>(Failure::Own))
                .await
        })
        .await;
    assert!(matches!(failed, Err(Failure::Own)));
    app.attempt(End::Release, async |app, steps| {
        assert_eq!(steps.attempt(), 1, "without a step, the claim was released");
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs")
    })
    .await;
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn another_body_under_the_key_of_a_parked_request_is_a_mismatch() {
    let app = App::new();
    app.attempt(End::Release, async |app, steps| {
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs")
    })
    .await;
    let other = Fingerprint::new(1, [2; 32]);
    assert_eq!(
        app.claim(other).await.expect_err("another request"),
        Duplicate::Mismatch
    );
}

#[tokio::test]
async fn the_result_of_another_input_is_never_returned() {
    let app = App::new();
    for (input, expected) in [(1, None), (2, Some(StepErrorKind::Diverged)), (1, None)] {
        let hold = app
            .attempt(End::Release, async |app, steps| {
                steps.run::<_, _, StepError>("hold", |_| app.effect()).of(&input).await
            })
            .await;
        assert_eq!(
            hold.map_err(|error| error.kind()),
            expected.map_or(Ok(Hold { id: 1 }), |kind| Err(Some(kind)))
        );
    }
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn equal_maps_are_equal_inputs_whatever_their_order() {
    let app = App::new();
    for names in [["a", "b"], ["b", "a"]] {
        let hold = app
            .attempt(End::Release, async |app, steps| {
                let step = steps.run::<_, _, StepError>("hold", |_| app.effect());
                step.of(&InOrder(names)).await
            })
            .await;
        assert_eq!(hold.expect("the same input"), Hold { id: 1 });
    }
}

#[tokio::test]
async fn a_step_that_runs_at_most_once_and_was_interrupted_asks_or_stops() {
    let app = App::new();
    // Its error leaves open whether there was an effect.
    let failed = app
        .attempt(End::Release, async |app, steps| {
            let body = async |_| {
                app.effect().await?;
                Err::<Hold, _>(Failure::Own)
            };
            steps.run::<_, _, StepError>("capture", body).at_most_once().await
        })
        .await;
    assert!(matches!(failed, Err(Failure::Own)));
    let interrupted = app
        .attempt(End::Release, async |app, steps| {
            assert!(!steps.is_recorded("capture").await.expect("no I/O"));
            steps
                .run::<_, _, StepError>("capture", |_| app.effect())
                .at_most_once()
                .await
        })
        .await;
    assert_eq!(
        interrupted.expect_err("not known").kind(),
        Some(StepErrorKind::Interrupted)
    );
    // A deploy that takes the option away does not call the body either.
    let interrupted = app
        .attempt(End::Release, async |app, steps| {
            steps.run::<_, _, StepError>("capture", |_| app.effect()).await
        })
        .await;
    assert_eq!(
        interrupted.expect_err("not known").kind(),
        Some(StepErrorKind::Interrupted)
    );
    let failed = app
        .attempt(End::Release, async |app, steps| {
            let ask = async || Err::<Option<Hold>, _>(Failure::Own);
            steps
                .run::<_, _, StepError>("capture", |_| app.effect())
                .at_most_once()
                .reconcile(ask)
                .await
        })
        .await;
    assert!(matches!(failed, Err(Failure::Own)));
    for _ in 0..2 {
        let found = app
            .attempt(End::Release, async |app, steps| {
                let find = async || Ok::<_, Failure>(Some(Hold { id: 1 }));
                steps
                    .run::<_, _, StepError>("capture", |_| app.effect())
                    .at_most_once()
                    .reconcile(find)
                    .await
            })
            .await;
        assert_eq!(found.expect("it was found"), Hold { id: 1 });
    }
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn a_step_that_did_not_happen_is_run_after_reconciling() {
    let app = App::new();
    app.attempt(End::Release, async |_, steps| {
        let body = async |_| Err::<Hold, _>(Failure::Own);
        steps.run::<_, _, StepError>("capture", body).at_most_once().await
    })
    .await
    .expect_err("it fails");
    app.attempt(End::Complete, async |app, steps| {
        let find = async || Ok::<Option<Hold>, Failure>(None);
        let captured = steps
            .run::<_, _, StepError>("capture", |_| app.effect())
            .at_most_once()
            .reconcile(find);
        assert_eq!(captured.await.expect("it runs"), Hold { id: 1 });
    })
    .await;
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn a_name_is_used_once_in_an_attempt_and_has_a_form() {
    let app = App::new();
    let long: &'static str = Box::leak("x".repeat(65).into_boxed_str());
    let (_run, steps) = app.claim(REQUEST).await.expect("the first");
    for steps in [steps, Steps::unprotected()] {
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs");
        for (name, kind) in [
            ("hold", StepErrorKind::NameUsedTwice),
            ("", StepErrorKind::NameInvalid),
            ("a b", StepErrorKind::NameInvalid),
            ("ä", StepErrorKind::NameInvalid),
            (long, StepErrorKind::NameInvalid),
        ] {
            let refused = steps.run::<_, _, StepError>(name, |_| app.effect()).await;
            assert_eq!(refused.expect_err("refused").kind(), Some(kind), "{name}");
        }
    }
    assert_eq!(app.effects(), 2);
}

#[tokio::test]
async fn an_attempt_has_so_many_steps_and_results_so_large() {
    let limits = StepLimits {
        most: 3,
        result_bytes: 10,
        total_bytes: 15,
    };
    let app = App::with(limits);
    let text = async |steps: &Steps, name, len: usize| {
        let body = async move |_| Ok::<_, Failure>("x".repeat(len));
        steps
            .run::<_, _, StepError>(name, body)
            .await
            .map_err(|error| error.kind())
    };
    app.attempt(End::Release, async |_, steps| {
        for (name, len) in [("large", 9), ("fits", 8), ("beyond", 7)] {
            assert_eq!(text(steps, name, len).await.expect("this attempt has it").len(), len);
        }
        assert_eq!(text(steps, "fourth", 1).await, Err(Some(StepErrorKind::TooMany)));
    })
    .await;
    app.attempt(End::Release, async |_, steps| {
        assert!(steps.is_recorded("large").await.expect("no I/O"));
        assert_eq!(text(steps, "large", 1).await, Err(Some(StepErrorKind::ResultNotKept)));
        assert_eq!(text(steps, "beyond", 1).await, Err(Some(StepErrorKind::ResultNotKept)));
        assert_eq!(text(steps, "fits", 1).await, Ok("x".repeat(8)));
    })
    .await;
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_an_error_and_never_a_rerun() {
    let app = App::new();
    app.attempt(End::Release, async |app, steps| {
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs")
    })
    .await;
    let unreadable = app
        .attempt(End::Release, async |_, steps| {
            steps
                .run::<_, _, StepError>("hold", async |_| Ok::<String, Failure>(String::new()))
                .await
        })
        .await;
    assert_eq!(
        unreadable.expect_err("another type").kind(),
        Some(StepErrorKind::Unreadable)
    );
}

#[tokio::test]
async fn a_step_whose_result_has_no_form_is_done_all_the_same() {
    let app = App::new();
    for expected in [Ok(()), Err(Some(StepErrorKind::ResultNotKept))] {
        let body = async |app: &App| app.effect().await.map(|_hold| Formless);
        let done = app
            .attempt(End::Release, async |app, steps| {
                let done = steps.run::<_, _, StepError>("hold", async |_| body(app).await).await;
                done.map(|Formless| ()).map_err(|error| error.kind())
            })
            .await;
        assert_eq!(done, expected);
    }
    assert_eq!(app.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_attempt_records_nothing() {
    let app = App::new();
    let (_run, zombie) = app.claim(REQUEST).await.expect("the first");
    zombie
        .run::<_, _, StepError>("hold", |_| app.effect())
        .await
        .expect("it runs");
    advance(Duration::from_secs(31)).await;
    app.attempt(End::Release, async |app, steps| {
        assert_eq!(steps.attempt(), 2);
        let late = zombie.run::<_, _, StepError>("capture", |_| app.effect()).await;
        assert_eq!(late.expect_err("superseded").kind(), Some(StepErrorKind::Superseded));
        assert!(!steps.is_recorded("capture").await.expect("no I/O"));
        assert_eq!(
            steps
                .run::<_, _, StepError>("hold", |_| app.effect())
                .await
                .expect("recorded"),
            Hold { id: 1 }
        );
    })
    .await;
    let late = zombie.run::<_, _, StepError>("mail", |_| app.effect()).await;
    assert_eq!(late.expect_err("parked").kind(), Some(StepErrorKind::Superseded));
}

#[tokio::test(start_paused = true)]
async fn steps_that_were_lost_stop_the_attempt() {
    let app = App::new();
    app.attempt(End::Release, async |app, steps| {
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs")
    })
    .await;
    app.backend.forget_steps(&key());
    let lost = app
        .attempt(End::Release, async |app, steps| {
            steps.run::<_, _, StepError>("hold", |_| app.effect()).await
        })
        .await;
    assert_eq!(lost.expect_err("lost").kind(), Some(StepErrorKind::Lost));
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn where_reruns_are_refused_a_parked_request_goes_on_and_a_panic_does_not() {
    let app = App::new();
    let refusing = POLICY.with_after_crash(AfterCrash::Refuse).with_max_attempts(1);
    for is_panic in [false, true] {
        let ClaimResult::Run(mut run) = app.engine.claim(&key(), REQUEST, &refusing).await.expect("no I/O") else {
            panic!("it goes on");
        };
        let steps = run.steps();
        steps
            .run::<_, _, StepError>("hold", |_| app.effect())
            .await
            .expect("it runs");
        let handler = async move {
            assert!(!is_panic, "on purpose");
            HandlerResult::Whole {
                answer: (),
                outcome: RecordOutcome::Release,
            }
        };
        let _answer = run.run(handler, |_| ()).await;
    }
    let unknown = app.engine.claim(&key(), REQUEST, &refusing).await.expect("no I/O");
    assert!(matches!(
        unknown,
        ClaimResult::Duplicate {
            duplicate: Duplicate::OutcomeUnknown,
            ..
        }
    ));
    assert_eq!(app.effects(), 1);
}

#[tokio::test]
async fn a_downstream_key_is_that_of_the_record_and_without_a_claim_new_each_time() {
    let app = App::new();
    let of = async |steps: Steps, name| {
        let key = steps.run::<_, _, StepError>(name, async |step: Step| Ok::<_, Failure>(step.downstream_key()));
        key.await.expect("it runs")
    };
    let (_run, steps) = app.claim(REQUEST).await.expect("the first");
    assert_eq!(of(steps, "hold").await, key().downstream_key("hold"));
    assert_ne!(
        of(Steps::unprotected(), "hold").await,
        of(Steps::unprotected(), "hold").await
    );
}

#[tokio::test]
async fn steps_that_run_at_the_same_time_are_all_recorded() {
    let app = App::new();
    app.attempt(End::Release, async |app, steps| {
        let one = steps.run::<_, _, StepError>("one", |_| app.effect()).into_future();
        let two = steps.run::<_, _, StepError>("two", |_| app.effect()).into_future();
        let (one, two) = futures_util::future::join(one, two).await;
        assert_ne!(one.expect("it runs"), two.expect("it runs"));
    })
    .await;
    app.attempt(End::Complete, async |_, steps| {
        assert!(steps.is_recorded("one").await.expect("no I/O") && steps.is_recorded("two").await.expect("no I/O"));
    })
    .await;
}
