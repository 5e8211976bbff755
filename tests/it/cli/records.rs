//! A store with a record in each state.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use idem_core::steps::StepBackend;
use idem_core::{
    Acquisition, Backend, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey, Owner, Record,
    RecordKey, Scope, Token,
};
use idem_http::why::Guard;
use idem_tests::until;

use super::{Place, Store};

/// What no command prints without `--reveal`.
pub(super) const BODY: &str = "B0DY-of-the-answer";
pub(super) const HEADER: &str = "HE4DER-of-the-answer";
pub(super) const RESULT: &str = "RE5ULT-of-a-step";
pub(super) const TASK: &str = "T4SK-result";

/// The first request with the key `stored`, as it was sent.
pub(super) const REQUEST: &str = "POST /payments HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n\
                                  idempotency-key: stored\r\n\r\n{\"amount\":1}";

const DAY: Duration = Duration::from_hours(24);

pub(super) fn key_of(operation: &str, key: &str) -> RecordKey {
    RecordKey::new(operation, &Scope::of("acme"), &IdempotencyKey::of(key)).expect("a key")
}

/// The key of a payment.
pub(super) fn payment(key: &str) -> RecordKey {
    key_of("POST /payments", key)
}

/// How the key of a payment is named on the command line.
pub(super) fn named(key: &str) -> String {
    payment(key).to_string()
}

/// The version of a record of [`fill`].
pub(super) fn version(phase: &str, number: u8) -> String {
    format!("{phase}-{}", format!("{number:02x}").repeat(16))
}

/// The fingerprint of [`REQUEST`].
pub(super) fn fingerprint() -> Fingerprint {
    let request = Request::post("/payments").header("content-type", "application/json");
    let request = request.body(Bytes::from_static(b"{\"amount\":1}")).expect("a request");
    Guard::new("POST /payments", Scope::of("acme")).fingerprint(&request)
}

/// A claim that differs between two runs of the tests in nothing but when it was made.
pub(super) fn claim(number: u8) -> Claim {
    let policy = ClaimPolicy::new(DAY).with_lease(Duration::from_hours(2));
    Claim {
        token: Token::from_bytes([number; 16]),
        owner: Owner::new("shop-1:77"),
        began_at: SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 20_454),
        ..Claim::first(fingerprint(), &policy)
    }
}

/// The bytes of a step: `docs/formats.md`.
fn step(state: u8, result: &str) -> Bytes {
    [&[1, state, 0, 0, 0, 1, 0], result.as_bytes()].concat().into()
}

pub(super) fn answer() -> Bytes {
    let answer = Response::builder()
        .status(201)
        .header("content-type", "application/json")
        .header("x-receipt", HEADER);
    let answer = answer.body(Bytes::from(format!("{{\"paid\":\"{BODY}\"}}")));
    idem_http::stored::encode(&answer.expect("a response")).expect("it fits")
}

pub(super) async fn take(backend: &impl Backend, key: &RecordKey, claim: &Claim) {
    let acquired = backend.claim(key, claim).await.expect("the store answers");
    assert_eq!(acquired, Acquisition::Acquired, "{key}");
}

pub(super) async fn complete(backend: &impl Backend, key: &RecordKey, number: u8, completion: Completion) {
    let claim = claim(number);
    take(backend, key, &claim).await;
    let completed = backend.complete(key, &claim, &completion, claim.ttl).await;
    assert_eq!(completed.expect("the store answers"), Fenced::Applied, "{key}");
}

/// A claim whose lease has lapsed.
pub(super) async fn lapse(backend: &impl Backend, key: &RecordKey, number: u8) {
    let claim = Claim {
        lease: ClaimPolicy::MIN,
        ..claim(number)
    };
    take(backend, key, &claim).await;
    until("the lease lapses", || async {
        let record = backend.read(key).await.expect("the store answers");
        matches!(record, Some(Record::Claimed { remaining, .. }) if remaining.is_zero())
    })
    .await;
}

/// A claim with these steps.
pub(super) async fn take_with_steps(
    backend: &(impl Backend + StepBackend),
    key: &RecordKey,
    number: u8,
    steps: &[(&str, Bytes)],
) -> Claim {
    let claim = claim(number);
    take(backend, key, &claim).await;
    for (name, step) in steps {
        let recorded = backend.record_step(key, &claim, name, step).await;
        assert_eq!(recorded.expect("the store answers"), Fenced::Applied, "{name}");
    }
    Claim {
        has_steps: true,
        ..claim
    }
}

/// Parks a claim with a step that has begun and one that is done.
pub(super) async fn park(backend: &(impl Backend + StepBackend), key: &RecordKey, number: u8) {
    let result = format!("\"{RESULT}\"");
    let steps = [("charge", step(1, "")), ("mail", step(2, &result))];
    let claim = take_with_steps(backend, key, number, &steps).await;
    let parked = backend.park(key, &claim).await.expect("the store answers");
    assert_eq!(parked, Fenced::Applied);
}

/// Makes a record in each state: the key is the state's name.
pub(super) async fn fill<B: Backend + StepBackend>(store: &Store<B>) {
    let backend = &store.backend;
    complete(backend, &payment("stored"), 1, Completion::Stored(answer())).await;
    take(backend, &payment("in-flight"), &claim(2)).await;
    lapse(backend, &payment("lapsed"), 3).await;
    let result = format!("{{\"id\":\"{RESULT}\"}}");
    let steps = [
        ("charge", step(1, "")),
        ("mail", step(2, &result)),
        ("ledger", step(3, "")),
        ("later", Bytes::from_static(&[9, 9])),
    ];
    take_with_steps(backend, &payment("steps"), 4, &steps).await;
    park(backend, &payment("parked"), 5).await;
    complete(backend, &payment("unknown"), 6, Completion::Unknown).await;
    complete(backend, &payment("not-stored"), 7, Completion::NotStored).await;
    let result = [&[1, 1], format!("{{\"shipped\":\"{TASK}\"}}").as_bytes()].concat();
    let task = key_of("task ship", "order-7");
    complete(backend, &task, 8, Completion::Stored(result.into())).await;
    store.plant_unreadable("POST%20/payments:acme:unreadable").await;
}

impl<B> Store<B> {
    /// Writes a record of a later version, and a step of it. In a table it is a copy of the record `stored` in a state that is not known.
    pub(super) async fn plant_unreadable(&self, key: &str) {
        match &self.place {
            Place::Redis(server) => {
                let mut set = redis::cmd("SET");
                set.arg(format!("idem:{{{key}}}"))
                    .arg("\u{9}later")
                    .arg("EX")
                    .arg(86_400);
                let mut connection = server.connection().await;
                set.exec_async(&mut connection).await.expect("SET");
                let mut step = redis::cmd("HSET");
                step.arg(format!("idem:{{{key}}}:s")).arg("left").arg("\u{1}");
                step.exec_async(&mut connection).await.expect("HSET");
            }
            Place::Sqlite(file) => {
                let columns = "state, token, attempt, fingerprint, lease_ms, ttl_ms, began_ms, owner, boot, lapses_ns, expires_ms, payload";
                let values = columns.replacen("state", "99", 1);
                let insert = format!(
                    "INSERT INTO idem_records (key, {columns}) SELECT '{key}', {values} FROM idem_records WHERE key LIKE '%:stored'"
                );
                assert_eq!(file.execute(&insert).await, 1);
                let step = format!("INSERT INTO idem_records_steps (key, name, step) VALUES ('{key}', 'left', x'01')");
                assert_eq!(file.execute(&step).await, 1);
            }
            Place::Postgres(server, schema) => {
                let columns =
                    "state, token, attempt, fingerprint, lease_ms, ttl_ms, lease_until, expires_at, sweep_at, payload";
                let values = columns.replacen("state", "99", 1);
                let insert = format!(
                    "INSERT INTO {schema}.idem_records (id, key, {columns}) SELECT sha256('{key}'), '{key}', {values} \
                     FROM {schema}.idem_records WHERE key LIKE '%:stored'"
                );
                server.execute(&insert).await;
                let step = format!(
                    "INSERT INTO {schema}.idem_records_steps (id, name, step) VALUES (sha256('{key}'), 'left', '\\x01')"
                );
                server.execute(&step).await;
            }
        }
    }
}
