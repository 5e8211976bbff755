//! The processes of the service: each is replaced when it has died.
//!
//! Owns which process is at which place. A place is empty while nothing can be started there, as while Redis is away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::journal::{Event, Journal};
use crate::{Client, Process, Program};

/// How often somebody looks who has died.
const ROUND: Duration = Duration::from_millis(20);

/// Running processes, replaced until this is dropped.
#[derive(Debug)]
pub(super) struct Fleet {
    places: Arc<Places>,
    watching: Vec<JoinHandle<()>>,
}

type Places = Vec<Mutex<Option<Process>>>;

fn lock(place: &Mutex<Option<Process>>) -> MutexGuard<'_, Option<Process>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Starts one process of each program.
    pub(super) fn start(programs: Vec<Program>) -> Self {
        let started = programs.iter().map(|program| Mutex::new(Some(program.start())));
        let places: Arc<Places> = Arc::new(started.collect());
        let watch = |(at, program)| tokio::spawn(replace(places.clone(), at, program));
        let watching = programs.into_iter().enumerate().map(watch).collect();
        Self { places, watching }
    }

    /// The number of the process at a place and how to call it, if there is one.
    pub(super) fn process(&self, at: usize) -> Option<(u32, Client)> {
        let place = lock(&self.places[at % self.places.len()]);
        place.as_ref().map(|process| (process.id(), process.client.clone()))
    }

    /// All processes that there are at the moment, each with its number in the system.
    pub(super) fn processes(&self) -> Vec<(u32, Client)> {
        (0..self.places.len()).filter_map(|at| self.process(at)).collect()
    }

    /// Lets the process at a place stand still, if there is one.
    pub(super) async fn freeze(&self, at: usize, length: Duration) {
        let frozen = {
            let place = lock(&self.places[at % self.places.len()]);
            let process = place.as_ref();
            process.inspect(|process| process.freeze());
            process.map(Process::id)
        };
        sleep(length).await;
        // A signal that was on its way may have killed it meanwhile, and another one be in its place.
        let place = lock(&self.places[at % self.places.len()]);
        if let Some(process) = place.as_ref().filter(|process| Some(process.id()) == frozen) {
            process.thaw();
        }
    }

    /// Kills the process at a place, if there is one.
    pub(super) fn kill(&self, at: usize, journal: &Journal) {
        kill(&mut [lock(&self.places[at % self.places.len()])], journal);
    }

    /// Kills all processes at once, and keeps the places empty while `meanwhile` looks at what they have left.
    pub(super) fn kill_all(&self, journal: &Journal, meanwhile: impl FnOnce()) {
        let mut places: Vec<_> = self.places.iter().map(lock).collect();
        kill(&mut places, journal);
        meanwhile();
    }
}

/// Kills what is at these places, before anybody waits for one of them to have ended.
fn kill(places: &mut [MutexGuard<'_, Option<Process>>], journal: &Journal) {
    for process in places.iter_mut().filter_map(|place| place.as_mut()) {
        journal.write(Event::Killed { process: process.id() });
        process.send_kill();
    }
    for place in places {
        // Dropping it waits for its end.
        drop(place.take());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for watching in &self.watching {
            watching.abort();
        }
    }
}

/// Looks after one place for as long as anybody wants it.
async fn replace(places: Arc<Places>, at: usize, program: Program) {
    loop {
        sleep(ROUND).await;
        // In one go: a process that was waited for has no number any more.
        let is_empty = {
            let mut place = lock(&places[at]);
            *place = place
                .take()
                .and_then(|mut process| (!process.has_ended()).then_some(process));
            place.is_none()
        };
        if is_empty {
            let program = program.clone();
            let fresh = spawn_blocking(move || program.try_start()).await;
            *lock(&places[at]) = fresh.unwrap_or_default();
        }
    }
}
