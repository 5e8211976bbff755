//! Handlers whose time and kind of end the test decides.
//!
//! Owns the check that a handler which was granted the right to run starts, and is not dropped before its end (IDEM-5). Does not
//! own when a handler ends: the test.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::door::Shared;
use super::history::End;
use crate::engine::{Duplicate, HandlerResult, RecordOutcome, RunAnswer};
use crate::steps::Steps;
use crate::{BackendErrorKind, Completion, Token};

/// The answer of a request.
#[derive(Debug)]
pub(super) enum Got {
    Executed(RunAnswer<u64>),
    Duplicate(Duplicate),
    Failed(BackendErrorKind),
}

/// A handler that waits for its end, and where it runs.
pub(super) struct Gate {
    pub(super) process: usize,
    pub(super) end: oneshot::Sender<End>,
}

pub(super) type Gates = Arc<Mutex<Vec<Gate>>>;

/// A handler that was granted the right to run, and must not be dropped before its end (IDEM-5).
pub(super) struct Granted {
    pub(super) shared: Shared,
    pub(super) process: usize,
    pub(super) key: usize,
    pub(super) token: Token,
    pub(super) ended: bool,
}

impl Granted {
    fn end(&mut self, end: &End) {
        self.ended = true;
        self.shared.lock().oracle.ended(self.key, self.token, end.clone());
    }

    pub(super) async fn run(mut self, steps: Option<Steps>, gates: Gates) -> HandlerResult<u64> {
        let number = self.shared.lock().oracle.started(self.key, self.token);
        let stepped = match &steps {
            Some(steps) => self.take_steps(steps).await,
            None => Ok(()),
        };
        let end = match stepped {
            Ok(()) => self.wait_for_end(number, &gates).await,
            Err(failure) => self.end_of(&failure),
        };
        self.end(&end);
        match end {
            End::With(outcome) => HandlerResult::Whole {
                answer: number,
                outcome,
            },
            // Not `panic!`, which would fill the output with intended panics.
            End::Panicked | End::Killed => resume_unwind(Box::new("in the handler, on purpose")),
        }
    }

    /// Waits until the test says how the handler ends.
    async fn wait_for_end(&self, number: u64, gates: &Gates) -> End {
        let (end, told) = oneshot::channel();
        let process = self.process;
        gates.lock().expect("not poisoned").push(Gate { process, end });
        match told.await {
            Ok(End::With(RecordOutcome::Complete {
                completion: Completion::Stored(_),
                keep_for,
            })) => End::With(RecordOutcome::Complete {
                completion: Completion::Stored(payload(number)),
                keep_for,
            }),
            Ok(end) => end,
            Err(_) => resume_unwind(Box::new("the process is dead")),
        }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let oracle = &mut self.shared.lock().oracle;
        let may_end = self.ended || oracle.is_dead(self.process);
        oracle.check(may_end, "IDEM-5", "a handler was dropped before its end");
    }
}

fn payload(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}
