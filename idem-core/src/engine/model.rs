//! A seeded model test: processes that stall and die over one store, and an oracle that checks the rules.
//!
//! Owns the random events of a few keys: requests, handlers that end or panic, clients that hang up, faults, deaths of processes,
//! and time. Does not own the faults on the way to the store (`door`), nor the rules (`oracle`). It uses no HTTP, no real store
//! and only one thread.
//!
//! The same seed makes the same run, on the paused clock. Replay one with
//! `IDEM_SEED=7 cargo test -p idem-core --lib model`; `IDEM_STEPS` sets how long it is, and `IDEM_SECONDS` for how long
//! other seeds follow.

mod desk;
mod door;
mod handler;
mod history;
mod oracle;
mod random;
mod seeds;
mod stepping;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, timeout};

use self::door::{Door, Shared, Weather, World};
use self::handler::{Gates, Got, Granted};
use self::history::End;
use self::oracle::Oracle;
use self::random::Random;
use self::stepping::LONGEST_STEPS;
use super::{ClaimResult, Engine, RecordOutcome};
use crate::spec::history::{History as CallHistory, Recorder};
use crate::{
    AfterCrash, BackendErrorKind, ClaimPolicy, Completion, Fingerprint, IdempotencyKey, MemoryBackend, RecordKey, Scope,
};

const LEASE: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(8);
/// How long some outcomes are kept, in place of [`TTL`].
const KEPT_BRIEFLY: Duration = Duration::from_secs(5);
const KEYS: usize = 5;
const PROCESSES: usize = 3;
/// For each key, whether a crash refuses further attempts.
const REFUSING: [bool; KEYS] = [false, false, true, false, true];
/// For each key, whether its handlers have durable steps.
const STEPPING: [bool; KEYS] = [false, false, false, true, true];
const FINGERPRINTS: [Fingerprint; 2] = [Fingerprint::new(1, [1; 32]), Fingerprint::new(1, [2; 32])];
/// If `false`, the store's own answers are not checked. A broken store must then show in what requests and handlers observe.
const CHECKS_THE_STORE: bool = true;

static RECORD_KEYS: LazyLock<[RecordKey; KEYS]> = LazyLock::new(|| {
    let key = |number| RecordKey::new("o", &Scope::global(), &IdempotencyKey::of(&number));
    std::array::from_fn(|number| key(number).expect("a valid key"))
});

fn key_at(key: &RecordKey) -> usize {
    let at = RECORD_KEYS.iter().position(|known| known == key);
    at.expect("a key of the model")
}

struct Process {
    number: usize,
    engine: Engine,
}

struct Request {
    process: usize,
    task: JoinHandle<()>,
}

struct Model {
    shared: Shared,
    store: MemoryBackend,
    /// The calls of the processes on the store, if they are checked as a history.
    calls: Option<CallHistory>,
    processes: Vec<Process>,
    requests: Vec<Request>,
    gates: Gates,
    /// The way of an operator to the store, and the recorder of the operator's calls.
    desk: Door,
    desk_recorder: Option<Arc<Recorder<Door, CallHistory>>>,
}

impl Model {
    fn new(seed: u64, calls: Option<CallHistory>) -> Self {
        let world = World {
            random: Random(seed),
            oracle: Oracle::new(),
            // The operator's, whose number is 0.
            weather: vec![Weather::Flaky],
            faults: vec![0],
        };
        let (shared, store) = (Shared(Arc::new(Mutex::new(world))), MemoryBackend::new());
        let desk = Door {
            process: 0,
            store: store.clone(),
            shared: shared.clone(),
        };
        let recorder = |calls: &CallHistory| Arc::new(Recorder::new(desk.clone(), 0, calls.clone()));
        let mut model = Self {
            shared,
            store,
            desk_recorder: calls.as_ref().map(recorder),
            desk,
            calls,
            processes: Vec::new(),
            requests: Vec::new(),
            gates: Gates::default(),
        };
        model.processes = (0..PROCESSES).map(|_| model.process()).collect();
        model
    }

    fn process(&self) -> Process {
        let world = &mut *self.shared.lock();
        let number = world.weather.len();
        world.weather.push(Weather::Clear);
        world.faults.push(0);
        let door = Door {
            process: number,
            store: self.store.clone(),
            shared: self.shared.clone(),
        };
        let engine = match &self.calls {
            None => Engine::new(door),
            Some(calls) => {
                let as_process = u32::try_from(number).expect("a few processes");
                Engine::new(Recorder::new(door, as_process, calls.clone()))
            }
        };
        Process { number, engine }
    }

    fn random(&self, bound: u64) -> u64 {
        self.shared.lock().random.below(bound)
    }

    fn index(&self, length: usize) -> usize {
        self.shared.lock().random.index(length)
    }

    fn note(&self, event: &str) {
        self.shared.lock().oracle.note(event);
    }

    async fn step(&mut self) {
        match self.random(200) {
            0..80 => self.request(),
            80..125 => self.end_handler(),
            125..135 => self.leave(),
            135..155 => self.change_weather(),
            155..157 => self.die(),
            157 => self.jump().await,
            158..162 => self.operate(),
            _ => {}
        }
        let time = match self.random(100) {
            0..20 => return,
            20..80 => self.random(600) + 1,
            80..98 => self.random(2_000) + 1,
            _ => self.random(14_000) + 1,
        };
        // Each sleeping task is woken at its own time, and runs until it waits again, before time goes on.
        sleep(Duration::from_millis(time)).await;
        self.collect();
    }

    fn request(&mut self) {
        if self.requests.len() >= 30 {
            return;
        }
        let (process, key) = (self.index(PROCESSES), self.index(KEYS));
        let fingerprint = FINGERPRINTS[usize::from(self.random(6) == 0)];
        let wait = [None, Some(Duration::from_secs(2)), Some(LEASE * 3)][self.index(3)];
        self.note(&format!(
            "p{} k{key} a request arrives, wait {wait:?}",
            self.processes[process].number
        ));
        self.send(process, key, fingerprint, wait);
    }

    fn send(&mut self, process: usize, key: usize, fingerprint: Fingerprint, wait: Option<Duration>) {
        let after_crash = if REFUSING[key] {
            AfterCrash::Refuse
        } else {
            AfterCrash::Rerun
        };
        let policy = ClaimPolicy::new(TTL).with_lease(LEASE).with_after_crash(after_crash);
        let policy = wait.map_or(policy, |wait| policy.with_wait(wait));
        let Process { number, engine } = &self.processes[process];
        let (number, engine) = (*number, engine.clone());
        let (shared, gates) = (self.shared.clone(), self.gates.clone());
        let task = tokio::spawn(async move {
            let faults = shared.lock().faults[number];
            let mut ran = None;
            let got = match engine.claim(&RECORD_KEYS[key], fingerprint, &policy).await {
                Ok(ClaimResult::Run(mut run)) => {
                    let steps = STEPPING[key].then(|| run.steps());
                    let token = run.claim().token;
                    ran = Some(token);
                    let granted = Granted {
                        shared: shared.clone(),
                        process: number,
                        key,
                        token,
                        ended: false,
                    };
                    Got::Executed(run.run(granted.run(steps, gates), |_| {}).await)
                }
                Ok(ClaimResult::Duplicate { duplicate, .. }) => Got::Duplicate(duplicate),
                Ok(ClaimResult::TooBusy) => unreachable!("no engine of the model has a limit"),
                Err(error) => Got::Failed(error.kind()),
            };
            let world = &mut *shared.lock();
            if !world.oracle.is_dead(number) {
                let was_hit = world.faults[number] > faults;
                world.oracle.answered(key, fingerprint, ran, &got, was_hit);
                let may_fail = match got {
                    Got::Failed(BackendErrorKind::Unavailable | BackendErrorKind::Timeout) => was_hit,
                    Got::Failed(_) => false,
                    _ => true,
                };
                world
                    .oracle
                    .check(may_fail, "IDEM-13", "a request failed though nothing was in its way");
            }
        });
        self.requests.push(Request { process: number, task });
    }

    fn end_handler(&mut self) {
        let running = self.gates.lock().expect("not poisoned").len();
        if running == 0 {
            return;
        }
        let at = self.index(running);
        let end = match self.random(20) {
            0..8 => End::With(RecordOutcome::complete(Completion::Stored(Bytes::new()))),
            8..10 => End::With(RecordOutcome::Complete {
                completion: Completion::Stored(Bytes::new()),
                keep_for: Some(KEPT_BRIEFLY),
            }),
            10..12 => End::With(RecordOutcome::complete(Completion::NotStored)),
            12 => End::With(RecordOutcome::complete(Completion::Unknown)),
            13..17 => End::With(RecordOutcome::Release),
            _ => End::Panicked,
        };
        let gate = self.gates.lock().expect("not poisoned").swap_remove(at);
        let _ = gate.end.send(end);
    }

    fn leave(&mut self) {
        if !self.requests.is_empty() {
            let request = self.requests.swap_remove(self.index(self.requests.len()));
            self.note(&format!("p{} a client leaves", request.process));
            request.task.abort();
        }
    }

    fn change_weather(&mut self) {
        // Preferably a process whose handlers are running.
        let running = self
            .gates
            .lock()
            .expect("not poisoned")
            .iter()
            .map(|gate| gate.process)
            .collect::<Vec<_>>();
        let process = if running.is_empty() || self.random(3) == 0 {
            self.processes[self.index(PROCESSES)].number
        } else {
            running[self.index(running.len())]
        };
        let (weather, name) = match self.random(8) {
            0..3 => (Weather::Clear, "clear"),
            3..5 => (Weather::Flaky, "flaky"),
            _ => {
                let stall = LEASE / 2 + Duration::from_millis(self.random(9_000));
                (Weather::Stalled(Instant::now() + stall), "stalled")
            }
        };
        self.note(&format!("p{process} is {name}"));
        self.shared.lock().weather[process] = weather;
    }

    /// A process dies, and another one starts in its place.
    fn die(&mut self) {
        let at = self.index(PROCESSES);
        let dead = self.processes[at].number;
        self.note(&format!("p{dead} dies"));
        self.shared.lock().oracle.died(dead);
        self.requests.retain(|request| {
            if request.process == dead {
                request.task.abort();
            }
            request.process != dead
        });
        self.gates
            .lock()
            .expect("not poisoned")
            .retain(|gate| gate.process != dead);
        self.processes[at] = self.process();
    }

    /// The whole machine stalls while time goes on.
    async fn jump(&mut self) {
        sleep(Duration::from_millis(1)).await;
        let time = Duration::from_millis(self.random(5_000));
        self.note(&format!("everything stands still for {time:?}"));
        self.shared.lock().oracle.all_disturbed();
        for faults in &mut self.shared.lock().faults {
            *faults += 1;
        }
        advance(time).await;
    }

    /// Drops the requests that have ended. None of them may have panicked.
    fn collect(&mut self) {
        let shared = self.shared.clone();
        self.requests.retain_mut(|request| {
            if !request.task.is_finished() {
                return true;
            }
            let ended = (&mut request.task).now_or_never();
            let panicked = ended.is_some_and(|ended| ended.is_err_and(|error| error.is_panic()));
            let oracle = &mut shared.lock().oracle;
            oracle.check(!panicked, "IDEM-5", "a request panicked");
            false
        });
    }

    /// Ends all faults and all handlers. After that, every request must be answered, every outcome recorded, and every key usable.
    async fn come_to_rest(&mut self) {
        self.note("the weather clears for good");
        self.shared.lock().weather.fill(Weather::Clear);
        let patience = KEPT_BRIEFLY.saturating_sub(LEASE);
        let since = Instant::now().checked_sub(patience).expect("the model ran for longer");
        let open = self.shared.lock().oracle.unrecorded(since);
        for _ in 0..50 + LONGEST_STEPS.as_secs() {
            while !self.gates.lock().expect("not poisoned").is_empty() {
                self.end_handler();
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.collect();
        let rests = self.requests.is_empty() && self.store.waiting() == 0;
        self.shared.lock().oracle.check(rests, "IDEM-4", "somebody still waits");
        for number in open {
            let oracle = &mut self.shared.lock().oracle;
            let is_over = oracle.is_over(number);
            oracle.check(
                is_over,
                "IDEM-13",
                &format!("the outcome of #{number} was never recorded"),
            );
        }
        for Process { number, engine } in &self.processes {
            let drained = timeout(Duration::from_secs(1), engine.drain()).await.is_ok();
            let what = format!("p{number} still runs something");
            self.shared.lock().oracle.check(drained, "IDEM-5", &what);
        }
    }
}
