//! An operator, who looks at records and settles them while everything else goes wrong.
//!
//! Owns the operator's calls, which are recorded like those of the processes, and what the journal says of them. An answer of the
//! operator's has a token that begins with [`OPERATOR`], where those of runs have their fencing token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Response;
use bytes::Bytes;
use idem_axum::{Backend, PostgresBackend, RedisBackend, SqliteBackend};
use idem_core::inspect::{LiveClaim, Operator, Settled, Settlement};
use idem_core::spec::history::Recorder;
use idem_core::{Completion, IdempotencyKey, RecordKey, Scope};
use idem_http::stored;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::calls::CallLog;
use super::journal::{Event, Journal};
use super::plan::{Change, Key, Plan, Route, Settling};
use super::service::RUN;

/// What the tokens of an operator's answers begin with.
pub(super) const OPERATOR: &str = "operator";

/// The number of the operator among the processes that record their calls. No process has it.
const NUMBER: u32 = u32::MAX;

/// How long an operator's call may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// How often the operator looks for a record that is not there yet, or cannot be seen.
const LOOKS: usize = 20;

/// For how long an outcome of the operator's is kept: for longer than a round.
const TTL: Duration = Duration::from_hours(24);

/// The operator of a round. Clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct LabOperator {
    operator: Operator,
    journal: Journal,
}

impl LabOperator {
    /// On the backend at `url`, whose calls are recorded in the file `recorded`.
    pub(super) async fn start(url: &str, recorded: &Path, journal: Journal) -> Self {
        let log = CallLog::open(recorded);
        let operator = if url.starts_with("postgres:") {
            let pool = PgPoolOptions::new().connect_lazy(url).expect("a URL");
            of(PostgresBackend::new(pool), log)
        } else if let Some(path) = url.strip_prefix("sqlite:") {
            of(SqliteBackend::open(path).await.expect("the file is there"), log)
        } else {
            of(RedisBackend::lazy(url).expect("a URL"), log)
        };
        Self { operator, journal }
    }

    /// Settles everything that is planned.
    pub(super) async fn run(&self, plan: &Arc<Plan>) {
        let begun = Instant::now();
        let mut settling = JoinSet::new();
        let mut number = 0;
        for (at, key) in plan.keys.iter().enumerate() {
            for planned in &key.settlements {
                number += 1;
                let (operator, plan, planned) = (self.clone(), plan.clone(), *planned);
                settling.spawn(async move {
                    sleep_until(begun + planned.at).await;
                    operator.settle(&plan.keys[at], planned, number).await;
                });
            }
        }
        settling.join_all().await;
    }

    async fn settle(&self, key: &Key, planned: Settling, number: u64) {
        let operation = format!("POST {}", Route::Operated.path());
        let record = RecordKey::new(&operation, &Scope::global(), &IdempotencyKey::of(&key.name));
        let record = record.expect("a valid key");
        let mut looks = 0..LOOKS;
        let shown = loop {
            if let Ok(Some(shown)) = self.operator.show(&record).await {
                break shown;
            }
            if looks.next().is_none() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        };
        sleep(planned.thinks).await;
        let settlement = match planned.change {
            Change::Forget => Settlement::Forget,
            Change::Rerun => Settlement::rerun(None),
            Change::Complete => Settlement::complete(Completion::Stored(answer(number)), TTL),
        };
        let live = if planned.is_forced {
            LiveClaim::Force
        } else {
            LiveClaim::Refuse
        };
        self.journal.write(Event::Settles {
            key: key.name.clone(),
            change: planned.change,
            number,
        });
        let version = shown.version();
        let settled = self
            .operator
            .settle(&record, version, &settlement, live, "the lab")
            .await;
        // An error leaves open whether it was applied.
        if let Ok(settled) = settled {
            self.journal.write(Event::Settled {
                key: key.name.clone(),
                number,
                is_applied: settled == Settled::Applied,
            });
        }
    }
}

fn of(backend: impl Backend, log: CallLog) -> Operator {
    let operator = Operator::new(Recorder::new(backend, NUMBER, log), "the lab");
    operator
        .expect("every backend of the lab can be inspected")
        .with_deadline(DEADLINE)
}

/// The operator's answer, which is told from others by its number.
fn answer(number: u64) -> Bytes {
    let token = format!("{OPERATOR}-{number}");
    let answer = Response::builder()
        .status(201)
        .header(RUN, &token)
        .body(Bytes::from(token));
    stored::encode(&answer.expect("a response")).expect("it is small")
}
