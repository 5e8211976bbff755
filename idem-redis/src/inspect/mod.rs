//! What an operator sees and settles of the records in Redis.
//!
//! Owns the reading of a whole record, and the commands that settle one. Each settlement is one script, which compares token and state
//! before it writes.
//!
//! | module | owns |
//! |---|---|
//! | `nodes` | the servers, and where a scan goes on |
//! | `scan` | finding the keys of a page |
//! | `listing` | reading the records of a page |
//! | `scripts` | the text of the scripts |
//! | `diagnosis` | how the servers are set up |
//!
//! Does not own the binary form of the record: [`record`].

mod diagnosis;
mod listing;
mod nodes;
mod scan;
mod scripts;

use std::time::Duration;

use bytes::Bytes;
use idem_core::claim::millis_of_time;
use idem_core::inspect::{
    Cursor, Finding, Inspect, LiveClaim, Page, Phase, RecordDetails, RecordVersion, Selection, Settled, Settlement,
    StepChange, StepsDigest, only_forgotten, signature,
};
use idem_core::steps::RecordedSteps;
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Record, RecordKey, Token};
use redis::Cmd;

use crate::backend::{LOOKS, RedisBackend, busy};
use crate::large::payload_key;
use crate::reading::rest_of_lease;
use crate::record::{self, Stored, millis};
use crate::scripts::{NUMBER_LEN, Telling};
use crate::steps::{recorded_steps, steps_key};

/// What `PTTL` returns for a key that does not exist.
const GONE: i64 = -2;

/// The time until a key is gone that never expires. It can be added to any date.
const NEVER: Duration = Duration::from_hours(100 * 365 * 24);

/// How long until a key is gone that has `left` milliseconds, or never expires.
fn expires_in(left: i64) -> Duration {
    u64::try_from(left).map_or(NEVER, Duration::from_millis)
}

/// Why a claim whose key never expires cannot be read.
const HAS_NO_EXPIRY: &str = "a claim has lost its expiry, so it may be live";

fn unreadable(why: impl Into<std::borrow::Cow<'static, str>>) -> BackendError {
    BackendError::new(BackendErrorKind::Unreadable, why)
}

/// A record as it is stored, the time that its key has left, and its steps.
type Whole = (Vec<u8>, i64, Vec<Vec<u8>>);

impl Inspect for RedisBackend {
    /// Sends one `SCAN` to one server, and reads each record that it returns. In a cluster, the primaries follow one another.
    ///
    /// A scan fails if a server is started again or replaced meanwhile, or if slots of a cluster are moved, because it would miss records
    /// otherwise. Begin it again then.
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.page(selection, after, limit).await
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        let name = self.key(key);
        let command = scripts::WHOLE.on_all([name.as_str(), &steps_key(&name)], 0, 0);
        // The token of a completed record whose payload was missing.
        let mut gone = None;
        for _ in 0..LOOKS {
            let reading = self
                .connection
                .invoke("reading a record", &name, &scripts::WHOLE, &command);
            let Some((bytes, left, steps)): Option<Whole> = reading.await? else {
                return Ok(None);
            };
            let (claim, record) = match record::decode(&bytes.into())? {
                Stored::Claimed(claim) => {
                    let remaining = rest_of_lease(left, &claim).ok_or_else(|| unreadable(HAS_NO_EXPIRY))?;
                    (claim.clone(), Record::Claimed { claim, remaining })
                }
                Stored::Parked(claim) => (claim.clone(), Record::Parked { claim }),
                Stored::Completed { claim, completion } => completed(claim, completion),
                Stored::CompletedBeside { claim, len } => {
                    match self.reads.read(&self.connection, &name, claim.token, len).await? {
                        Some(payload) => completed(claim, Completion::Stored(payload)),
                        None if gone == Some(claim.token) => completed(claim, Completion::NotStored),
                        // The record and its payload may both have gone since the record was read.
                        None => {
                            gone = Some(claim.token);
                            continue;
                        }
                    }
                }
            };
            let steps: RecordedSteps = recorded_steps(steps)?;
            return Ok(Some(RecordDetails::of(key, &claim, record, steps, expires_in(left))));
        }
        Err(busy())
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        let name = self.key(key);
        if version.phase == Phase::Unreadable {
            only_forgotten(settlement, live)?;
            return self.forget_unreadable(&name, version).await;
        }
        let signature = self.signature(&name, version.steps).await;
        let signature = signature.map_err(BackendError::not_written)?;
        let (script, command) = self.settling(&name, version, settlement, (live, &signature));
        let script = script.on_cluster(self.connection.is_cluster());
        let settling = self.connection.invoke("settling a record", &name, script, &command);
        let answer: Vec<i64> = settling.await?;
        match (answer.first().copied(), answer.get(1)) {
            (Some(scripts::APPLIED), _) => Ok(Settled::Applied),
            (Some(scripts::CHANGED), _) => Ok(Settled::Changed),
            (Some(scripts::IS_LIVE), Some(left)) => Ok(Settled::Live(Duration::from_millis(left.unsigned_abs()))),
            (Some(scripts::HAS_NO_EXPIRY), _) => {
                let context = format!("{HAS_NO_EXPIRY}; settle it by force if no handler runs under it");
                Err(unreadable(context).not_written())
            }
            (Some(scripts::IS_UNREADABLE), _) => {
                Err(unreadable("it is of another version, or not a record of idem").not_written())
            }
            _ => Err(unreadable("the answer of the script that settles a record")),
        }
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        self.findings().await
    }
}

fn completed(claim: Claim, completion: Completion) -> (Claim, Record) {
    let fingerprint = claim.fingerprint;
    let record = Record::Completed {
        fingerprint,
        completion,
    };
    (claim, record)
}

/// The states of a record in this phase, as a script compares them.
fn states_of(phase: Phase) -> &'static [u8] {
    match phase {
        Phase::Claimed => record::CLAIMED_STATES,
        Phase::Parked => record::PARKED_STATES,
        Phase::Completed => record::COMPLETED_STATES,
        // No state is one of a record that cannot be read.
        Phase::Unreadable => &[],
    }
}

/// A signature that no steps have.
const OTHER_STEPS: &str = "?";

impl RedisBackend {
    /// The signature of the steps that the operator has seen, which the script compares again.
    async fn signature(&self, name: &str, seen: StepsDigest) -> Result<String, BackendError> {
        if seen == StepsDigest::NONE {
            return Ok(String::new());
        }
        let mut command = redis::cmd("HGETALL");
        command.arg(steps_key(name));
        let steps: Vec<Vec<u8>> = self.connection.query("reading steps", name, &command).await?;
        let steps = recorded_steps(steps)?;
        let signature = signature(steps.iter().map(|(name, step)| (name.as_str(), &step[..])));
        let is_same = StepsDigest::of_signature(&signature) == seen;
        Ok(if is_same { signature } else { OTHER_STEPS.to_owned() })
    }

    /// Removes a record that cannot be read, if it is still as it was seen.
    async fn forget_unreadable(&self, name: &str, seen: RecordVersion) -> Result<Settled, BackendError> {
        let command = scripts::BEGINNING.on(name, 0, 0);
        let looking = self
            .connection
            .invoke("reading a record", name, &scripts::BEGINNING, &command);
        let looked = looking.await.map_err(BackendError::not_written);
        let (beginning, len, _): (Vec<u8>, usize, i64) = looked?;
        if listing::version_of(&beginning, len) != seen {
            return Ok(Settled::Changed);
        }
        let script = scripts::FORGET_UNREADABLE.on_cluster(self.connection.is_cluster());
        let mut command = script.on_all([name, &steps_key(name)], 2, beginning.len() + NUMBER_LEN);
        command.arg(&beginning).arg(len);
        let forgetting = self.connection.invoke("settling a record", name, script, &command);
        let answer: Vec<i64> = forgetting.await?;
        Ok(match answer.first() {
            Some(&scripts::APPLIED) => Settled::Applied,
            _ => Settled::Changed,
        })
    }

    /// The script and the command of a settlement.
    fn settling(
        &self,
        name: &str,
        version: RecordVersion,
        settlement: &Settlement,
        (live, signature): (LiveClaim, &str),
    ) -> (&'static Telling, Cmd) {
        let script: &'static Telling = match settlement {
            Settlement::Forget => &scripts::FORGET,
            Settlement::Rerun { .. } => &scripts::RERUN,
            Settlement::Complete { .. } => &scripts::COMPLETE,
        };
        let keys = [name, &steps_key(name), &payload_key(name, version.token)];
        let bytes = 2 * Token::LEN + 3 * NUMBER_LEN + signature.len();
        let mut command = script.on_cluster(self.connection.is_cluster()).on_all(keys, 8, bytes);
        command
            .arg(&version.token.to_bytes())
            .arg(states_of(version.phase))
            .arg(u8::from(live == LiveClaim::Force))
            .arg(signature);
        match settlement {
            Settlement::Forget => {}
            Settlement::Rerun { token, began_at, step } => {
                command
                    .arg(&token.to_bytes())
                    .arg(&millis_of_time(*began_at).to_be_bytes());
                match step {
                    Some(StepChange::Done { name, step }) => command.arg(name).arg(&step[..]),
                    Some(StepChange::NotDone { name }) => command.arg(name),
                    None => &mut command,
                };
            }
            Settlement::Complete { token, completion, ttl } => {
                let (state, payload) = record::state_of(completion);
                let payload: Bytes = payload;
                command
                    .arg(&token.to_bytes())
                    .arg(&[state])
                    .arg(&payload[..])
                    .arg(millis(*ttl));
            }
        }
        (script, command)
    }
}
