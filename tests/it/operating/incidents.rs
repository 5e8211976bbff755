//! One test an incident: what the page says that one sees, the commands of the page, and what the client gets afterwards.

use idem_axum::RedisBackend;
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend as _, Claim, ClaimPolicy, Engine, Fenced, Fingerprint, IdempotencyKey, RecordKey, Scope,
};
use idem_task::{Refused, TaskError, TaskExt as _, Verdict, verdict};
use idem_tests::{Answer, Log, RedisServer, Service, in_time, until};
use reqwest::Method;
use serde_json::json;
use tracing::Level;

use super::service::{DAY, start};
use super::{Desk, PAGE};

/// A request of an incident: the path, the key, and the body if it is not empty.
async fn ask(service: &Service, path: &str, key: &str) -> Answer {
    service.client.call(Method::POST, path).key(key).send().await
}

/// Fails unless the log has the line with which the page begins the incident.
pub(super) fn assert_logged(log: &Log, incident: u32) {
    let section = PAGE
        .split("\n## ")
        .find(|section| section.starts_with(&format!("{incident}. ")));
    let section = section.expect("the page has this incident");
    let line = section
        .split("```text\n")
        .nth(1)
        .and_then(|text| text.lines().next())
        .expect("it begins with a line");
    let (_level, text) = line.split_once(' ').expect("a level");
    // The page leaves out what differs from one line to the next.
    let has_all = |line: &str| text.split('…').all(|part| line.contains(part.trim()));
    assert!(log.text().lines().any(has_all), "{text:?} is not in:\n{}", log.text());
}

#[tokio::test]
async fn incident_1_an_unknown_outcome_that_happened_gets_its_answer() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        assert_eq!(ask(&service, "/payments", "invoice-1").await.status, 500);
        assert_eq!(
            ask(&service, "/payments", "invoice-1").await.problem(),
            "outcome-unknown"
        );
        assert_logged(&log, 1);
        let mut desk = Desk::new(&server, 1);
        let shown = desk.run(0).await;
        assert!(
            shown.contains("unknown") && shown.contains("POST%20/payments:acme:invoice-1"),
            "{shown}"
        );
        let settled = desk.run(0).await;
        assert!(
            settled.contains("an operator has settled a record") && settled.contains("ticket 4711"),
            "{settled}"
        );
        assert_eq!(ask(&service, "/payments", "another").await.status, 500);
        let alert = desk.shell("idem list --all --state unknown --expect-none").await;
        assert_eq!(alert.status.code(), Some(6));
        let another = desk
            .shell("idem forget POST%20/payments:acme:another --yes --reason test")
            .await;
        assert_eq!(another.status.code(), Some(0));
        desk.run(0).await;
        desk.end();
        for _ in 0..2 {
            let answer = ask(&service, "/payments", "invoice-1").await;
            assert!(answer.is_replay() && answer.status == 201, "{answer:?}");
            assert_eq!(answer.json(), json!({ "charge": "ch_1" }));
        }
        assert_eq!(shop.runs(), 2, "one of each");
    })
    .await;
}

#[tokio::test]
async fn incident_2_an_unknown_outcome_that_did_not_happen_runs_again() {
    in_time(async {
        let (service, server, shop) = start().await;
        assert_eq!(ask(&service, "/payments", "invoice-2").await.status, 500);
        shop.mend();
        assert_eq!(
            ask(&service, "/payments", "invoice-2").await.problem(),
            "outcome-unknown"
        );
        let mut desk = Desk::new(&server, 2);
        desk.run(0).await;
        desk.run(0).await;
        desk.end();
        let answer = ask(&service, "/payments", "invoice-2").await;
        assert!(!answer.is_replay() && answer.status == 201, "{answer:?}");
        assert_eq!(shop.runs(), 2);
        assert!(ask(&service, "/payments", "invoice-2").await.is_replay());
    })
    .await;
}

#[tokio::test]
async fn incident_3_a_wrong_answer_is_forgotten() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        let quote = async || {
            service
                .client
                .call(Method::POST, "/quotes")
                .key("quote-3")
                .json(&json!({}))
                .send()
                .await
        };
        assert_eq!(quote().await.json()["total"], 0);
        shop.mend();
        assert_eq!(quote().await.json()["total"], 0);
        assert_logged(&log, 3);
        let mut desk = Desk::new(&server, 3);
        let shown = desk.run(0).await;
        assert!(shown.contains("\"total\":0"), "{shown}");
        desk.run(0).await;
        desk.end();
        assert_eq!(quote().await.json()["total"], 42);
        assert!(quote().await.is_replay());
        assert_eq!(shop.runs(), 2);
    })
    .await;
}

#[tokio::test]
async fn incident_4_many_wrong_answers_are_counted_and_then_forgotten() {
    in_time(async {
        const REQUESTS: u32 = 12;
        let (service, server, shop) = start().await;
        for number in 0..REQUESTS {
            ask(&service, "/prices", &format!("price-{number}")).await;
        }
        ask(&service, "/reports", "another").await;
        shop.mend();
        let mut desk = Desk::new(&server, 4);
        let counted = desk.run(0).await;
        assert!(
            counted.contains("12 records would be forgotten") && counted.contains("POST /prices"),
            "{counted}"
        );
        assert_eq!(server.records().await, 13, "a dry run changes nothing");
        let forgotten = desk.run(0).await;
        assert!(
            forgotten.contains("12 forgotten, 0 gone before, 0 changed meanwhile, 0 live"),
            "{forgotten}"
        );
        desk.end();
        for number in 0..REQUESTS {
            let answer = ask(&service, "/prices", &format!("price-{number}")).await;
            assert_eq!((answer.is_replay(), answer.json()["price"].clone()), (false, json!(2)));
        }
        assert_eq!(
            ask(&service, "/reports", "another").await.problem(),
            "response-not-stored"
        );
    })
    .await;
}

/// What a process leaves that dies inside of the step `charge`: a lapsed claim, and the start of the step.
async fn interrupt(server: &RedisServer, key: &str) {
    let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
    let record =
        RecordKey::new("POST /subscriptions", &Scope::of("acme"), &IdempotencyKey::of(key)).expect("a valid key");
    let policy = ClaimPolicy::new(DAY).with_lease(ClaimPolicy::MIN);
    let claim = Claim::first(Fingerprint::NONE, &policy);
    assert_eq!(
        backend.claim(&record, &claim).await.expect("healthy"),
        Acquisition::Acquired
    );
    // Started, by attempt 1, without an input: docs/formats.md.
    let started = b"\x01\x01\0\0\0\x01\0".as_slice().into();
    let recorded = backend.record_step(&record, &claim, "charge", &started).await;
    assert_eq!(recorded.expect("healthy"), Fenced::Applied);
    until("the lease has lapsed", async || {
        let read = backend.read(&record).await.expect("healthy");
        matches!(read, Some(idem_core::Record::Claimed { remaining, .. }) if remaining.is_zero())
    })
    .await;
}

#[tokio::test]
async fn incident_5_an_interrupted_step_that_happened_is_told_and_the_retry_finishes() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        interrupt(&server, "sub-5").await;
        for _ in 0..2 {
            assert_eq!(
                ask(&service, "/subscriptions", "sub-5").await.problem(),
                "outcome-unknown"
            );
        }
        assert_logged(&log, 5);
        let mut desk = Desk::new(&server, 5);
        let request = "POST /subscriptions HTTP/1.1\r\nidempotency-key: sub-5\r\n\r\n";
        std::fs::write(desk.folder().join("retry.http"), request).expect("a file");
        let shown = desk.run(0).await;
        assert!(shown.contains("parked") && shown.contains("charge started"), "{shown}");
        assert!(shown.contains("The step charge has begun"), "{shown}");
        desk.run(0).await;
        desk.end();
        let answer = ask(&service, "/subscriptions", "sub-5").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (201, json!({ "charge": "ch_5" }))
        );
        assert_eq!((shop.charges(), shop.mails()), (0, 1), "the rest is done, and once");
        assert!(ask(&service, "/subscriptions", "sub-5").await.is_replay());
    })
    .await;
}

#[tokio::test]
async fn incident_6_an_interrupted_step_that_did_not_happen_runs() {
    in_time(async {
        let (service, server, shop) = start().await;
        interrupt(&server, "sub-6").await;
        assert_eq!(
            ask(&service, "/subscriptions", "sub-6").await.problem(),
            "outcome-unknown"
        );
        let mut desk = Desk::new(&server, 6);
        desk.run(0).await;
        desk.run(0).await;
        desk.end();
        let answer = ask(&service, "/subscriptions", "sub-6").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (201, json!({ "charge": "ch_new" }))
        );
        assert_eq!((shop.charges(), shop.mails()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn incident_7_a_claim_is_taken_from_a_handler_that_hangs() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        let hanging = {
            let client = service.client.call(Method::POST, "/exports").key("export-7");
            tokio::spawn(client.send())
        };
        shop.until_started().await;
        assert_eq!(ask(&service, "/exports", "export-7").await.problem(), "in-flight");
        until("the handler is said to hang", async || {
            !log.lines_with("the handler has been running for several leases")
                .is_empty()
        })
        .await;
        assert_logged(&log, 7);
        let mut desk = Desk::new(&server, 7);
        let shown = desk.run(0).await;
        assert!(shown.contains("in-flight") && shown.contains("owner"), "{shown}");
        let refused = desk
            .shell("idem forget POST%20/exports:acme:export-7 --yes --reason test")
            .await;
        assert_eq!(refused.status.code(), Some(5), "a live claim is refused");
        desk.run(0).await;
        desk.end();
        let answer = ask(&service, "/exports", "export-7").await;
        assert_eq!((answer.status.as_u16(), answer.json()), (201, json!({ "run": 2 })));
        shop.release();
        let late = hanging.await.expect("no panic");
        assert!(late.says_not_stored(), "{late:?}");
        let replay = ask(&service, "/exports", "export-7").await;
        assert_eq!((replay.is_replay(), replay.json()), (true, json!({ "run": 2 })));
    })
    .await;
}

#[tokio::test]
async fn incident_8_why_names_the_part_in_which_a_retry_differs() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, _shop) = start().await;
        let quote = async |body: &'static str| {
            let call = service.client.call(Method::POST, "/quotes").key("quote-8");
            call.header("content-type", b"application/json").body(body).send().await
        };
        assert_eq!(quote("{\"item\":8}").await.status, 201);
        assert_eq!(quote("{\"item\":8}\n").await.problem(), "key-reused");
        assert_logged(&log, 8);
        let mut desk = Desk::new(&server, 8);
        let request = "POST /quotes HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\nidempotency-key: quote-8\r\n\r\n{\"item\":8}\n";
        std::fs::write(desk.folder().join("retry.http"), request).expect("a file");
        let said = desk.run(7).await;
        assert!(said.contains("is refused with 422 key-reused"), "{said}");
        assert!(said.contains("body without the line break at its end"), "{said}");
        let first = request.trim_end().replace(":8}", ":9}");
        std::fs::write(desk.folder().join("first.http"), first).expect("a file");
        let said = desk.run(7).await;
        assert!(said.contains("The two requests differ in: body."), "{said}");
        desk.end();
    })
    .await;
}

#[tokio::test]
async fn incident_9_an_answer_that_was_not_kept_is_given_by_hand() {
    in_time(async {
        let (log, _guard) = Log::listen(Level::INFO);
        let (service, server, shop) = start().await;
        assert_eq!(ask(&service, "/reports", "report-9").await.status, 201);
        assert_eq!(
            ask(&service, "/reports", "report-9").await.problem(),
            "response-not-stored"
        );
        assert_logged(&log, 9);
        let mut desk = Desk::new(&server, 9);
        std::fs::write(desk.folder().join("answer.json"), "{\"report\":9}").expect("a file");
        desk.run(0).await;
        desk.run(0).await;
        desk.end();
        let answer = ask(&service, "/reports", "report-9").await;
        assert!(answer.is_replay(), "{answer:?}");
        assert_eq!(answer.headers["location"], "/reports/9");
        assert_eq!((answer.json(), shop.runs()), (json!({ "report": 9 }), 1));
    })
    .await;
}

/// Why an order is not shipped.
#[derive(Debug)]
enum ShipError {
    Refused(Refused),
    NoSuchAddress,
}

impl std::fmt::Display for ShipError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::NoSuchAddress => f.write_str("no such address"),
        }
    }
}

impl From<Refused> for ShipError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl TaskError for ShipError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(refused) => refused.verdict(),
            Self::NoSuchAddress => Verdict::SetAside,
        }
    }
}

/// Delivers the message once; what it comes to.
async fn ship(engine: &Engine, is_mended: bool) -> Result<u32, Verdict> {
    let task = engine.task("ship").scope("acme").key("order-10").ttl(DAY);
    let ran = task.run(async move |_| {
        if is_mended {
            Ok(10)
        } else {
            Err(ShipError::NoSuchAddress)
        }
    });
    let ran = ran.await;
    let verdict = verdict(&ran);
    ran.map_err(|_error| verdict)
}

#[tokio::test]
async fn incident_10_a_message_that_was_set_aside_is_shipped_after_all() {
    in_time(async {
        let server = RedisServer::start().await;
        let engine = Engine::new(RedisBackend::connect(&server.url()).await.expect("the server answers"));
        for is_mended in [false, true] {
            assert_eq!(ship(&engine, is_mended).await, Err(Verdict::SetAside));
        }
        let mut desk = Desk::new(&server, 10);
        let shown = desk.run(0).await;
        assert!(
            shown.contains("final error of a task") && shown.contains("no such address"),
            "{shown}"
        );
        desk.run(0).await;
        desk.end();
        assert_eq!(ship(&engine, true).await, Ok(10));
    })
    .await;
}
