//! Crowds at one record, without HTTP: what they cost others who use the same backend by the same process.
//!
//! Owns four crowds around an answer of 1 MiB: those who wait for it, hang up, ask for something else, and are refused while it
//! is being made. Others claim keys of their own meanwhile, one after the other, and how long each claim takes is compared with
//! the time that it takes when they are alone. Nothing is judged but that everybody gets what is due.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use idem_axum::sqlx::PgPool;
use idem_axum::{PostgresBackend, RedisBackend};
use idem_core::{
    Backend, ClaimPolicy, ClaimResult, Completion, Duplicate, Engine, Fingerprint, HandlerResult, IdempotencyKey,
    RecordKey, RecordOutcome, Run, RunAnswer, Scope,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::costs::{Besieged, memory};
use super::report::share;

const WAITERS: usize = 10_000;
const OTHERS: usize = 1_000;
/// How many claim keys of their own at a time.
const CLAIMING: usize = 4;
/// For how long they are alone.
const ALONE: Duration = Duration::from_secs(3);
/// For how long a crowd has been there before anything happens.
const STANDING: Duration = Duration::from_secs(2);

const MEBIBYTE: usize = 1 << 20;
const REQUEST: Fingerprint = Fingerprint::new(1, [1; 32]);
const OTHER: Fingerprint = Fingerprint::new(1, [2; 32]);
const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_mins(10));
const PATIENT: ClaimPolicy = POLICY.with_wait(Duration::from_secs(50));

/// What claims of others took, alone and beside each crowd.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    lines: Vec<(&'static str, Vec<Duration>)>,
    /// In how many places of memory the waiters got their answer.
    copies: usize,
    /// Bytes of memory of the process that they waited in: before, and at most.
    memory: [u64; 2],
    /// What somebody did not get.
    pub(super) errors: Vec<String>,
}

impl Crowds {
    /// Lets the crowds come to a server whose tables are there.
    pub(super) async fn come(besieged: &Besieged) -> Self {
        let url = besieged.url();
        if let Besieged::Postgres(_) = besieged {
            let pool = PgPool::connect_lazy(&url).expect("a URL");
            return Self::to(PostgresBackend::new(pool)).await;
        }
        Self::to(RedisBackend::connect(&url).await.expect("the server answers")).await
    }

    async fn to(backend: impl Backend) -> Self {
        let engine = Engine::new(backend);
        let mut crowds = Self::default();
        crowds.beside("nobody", &engine, sleep(ALONE)).await;

        let owner = claim(&engine, "k", REQUEST, &POLICY).await;
        let before = memory(std::process::id()).unwrap_or_default();
        let waiting = async {
            let mut waiters = JoinSet::new();
            for _ in 0..WAITERS {
                let engine = engine.clone();
                waiters.spawn(async move { claim(&engine, "k", REQUEST, &PATIENT).await });
            }
            sleep(STANDING).await;
            complete(owner, Bytes::from(vec![7; MEBIBYTE])).await;
            let answers = waiters.join_all().await;
            (answers, memory(std::process::id()).unwrap_or_default())
        };
        let (answers, after) = crowds.beside("10,000 who wait for the answer", &engine, waiting).await;
        crowds.memory = [before, after];
        crowds.copies = crowds.places(answers);

        let leaving = async {
            let mut leavers = JoinSet::new();
            for number in 0..OTHERS {
                let engine = engine.clone();
                let after = Duration::from_micros(number as u64 % 50 * 100);
                leavers.spawn(async move { drop(timeout(after, claim(&engine, "k", REQUEST, &PATIENT)).await) });
            }
            leavers.join_all().await;
            sleep(STANDING).await;
        };
        crowds.beside("1,000 who hang up", &engine, leaving).await;
        let refused = crowds
            .ask("1,000 who ask for something else", &engine, "k", OTHER)
            .await;
        crowds.expect(refused, |duplicate| *duplicate == Duplicate::Mismatch);

        let holder = claim(&engine, "held", REQUEST, &POLICY).await;
        let refused = crowds
            .ask("1,000 who are refused meanwhile", &engine, "held", REQUEST)
            .await;
        crowds.expect(refused, |duplicate| matches!(duplicate, Duplicate::InFlight(_)));
        drop(holder);
        crowds
    }

    /// Lets so many ask at once.
    async fn ask(
        &mut self,
        name: &'static str,
        engine: &Engine,
        key: &'static str,
        fingerprint: Fingerprint,
    ) -> Vec<Option<ClaimResult>> {
        let asking = async {
            let mut asking = JoinSet::new();
            for _ in 0..OTHERS {
                let engine = engine.clone();
                asking.spawn(async move { claim(&engine, key, fingerprint, &POLICY).await });
            }
            let answers = asking.join_all().await;
            sleep(STANDING).await;
            answers
        };
        self.beside(name, engine, asking).await
    }

    /// Notes how long claims of others take beside a crowd.
    async fn beside<T>(&mut self, name: &'static str, engine: &Engine, crowd: impl Future<Output = T>) -> T {
        let mut stops = Vec::new();
        let mut others = JoinSet::new();
        for number in 0..CLAIMING {
            let (stop, stopped) = oneshot::channel();
            stops.push(stop);
            others.spawn(claims(engine.clone(), format!("{name} {number}"), stopped));
        }
        let came = crowd.await;
        drop(stops);
        let mut times = others.join_all().await.concat();
        times.sort_unstable();
        self.lines.push((name, times));
        came
    }

    /// Checks that all were answered with the same bytes, and says how many copies of them there were.
    fn places(&mut self, answers: Vec<Option<ClaimResult>>) -> usize {
        let mut places: Vec<Bytes> = Vec::new();
        for answer in answers {
            match answer {
                Some(ClaimResult::Duplicate {
                    duplicate: Duplicate::Replay(bytes),
                    ..
                }) => {
                    if places.iter().all(|place| place.as_ptr() != bytes.as_ptr()) {
                        places.push(bytes);
                    }
                }
                other => self.errors.push(format!("a waiter got {other:?}")),
            }
        }
        if places.windows(2).any(|two| two[0] != two[1]) {
            self.errors.push("waiters got different answers".to_owned());
        }
        places.len()
    }

    fn expect(&mut self, answers: Vec<Option<ClaimResult>>, is_due: impl Fn(&Duplicate) -> bool) {
        for answer in answers {
            match answer {
                Some(ClaimResult::Duplicate { duplicate, .. }) if is_due(&duplicate) => {}
                other => self.errors.push(format!("one of a crowd got {other:?}")),
            }
        }
    }
}

/// Claims new keys one after the other, and says how long each claim took.
async fn claims(engine: Engine, name: String, mut stopped: oneshot::Receiver<()>) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0_u64.. {
        if stopped.try_recv() != Err(oneshot::error::TryRecvError::Empty) {
            break;
        }
        let asked = Instant::now();
        let claimed = claim(&engine, &format!("{name} {number}"), REQUEST, &POLICY).await;
        times.push(asked.elapsed());
        complete(claimed, Bytes::from_static(b"small")).await;
        sleep(Duration::from_millis(1)).await;
    }
    times
}

async fn claim(engine: &Engine, key: &str, fingerprint: Fingerprint, policy: &ClaimPolicy) -> Option<ClaimResult> {
    let key = RecordKey::new("crowd", &Scope::global(), &IdempotencyKey::of(key)).expect("a valid key");
    engine.claim(&key, fingerprint, policy).await.ok()
}

/// Runs a claim that was acquired, with this as its answer.
async fn complete(claimed: Option<ClaimResult>, payload: Bytes) {
    let Some(ClaimResult::Run(run)) = claimed else { return };
    let finished = HandlerResult::Whole {
        answer: (),
        outcome: RecordOutcome::complete(Completion::Stored(payload)),
    };
    let _: RunAnswer<()> = Run::run(run, async { finished }, |_| {}).await;
}

impl fmt::Display for Crowds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "claims of others, p50 and p99, beside")?;
        for (name, times) in &self.lines {
            let (median, slow) = (share(times, 50), share(times, 99));
            writeln!(f, "  {name:<40}{median:>8.1}{slow:>8.1} ms of {}", times.len())?;
        }
        let [before, after] = self.memory.map(|bytes| bytes >> 20);
        writeln!(f, "{:<42}{:>8}", "copies of the answer for 10,000 waiters", self.copies)?;
        writeln!(
            f,
            "{:<42}{before:>8} then {after} MiB",
            "memory of the process that they wait in"
        )
    }
}
