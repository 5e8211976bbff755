//! Durable steps: a hash beside the record, and the calls on records that have one.
//!
//! Owns the name of the hash. The record says whether it has steps, so that a record without steps costs what it did before. The hash
//! expires with its record. If it is missing although the record has steps, the server has lost it.
//!
//! Does not own the binary form of the record: [`record`].

mod scripts;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use idem_core::steps::{RecordedSteps, StepBackend};
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, Fenced, LARGE_PAYLOAD, RecordKey};
use redis::Cmd;

use crate::backend::{RedisBackend, lifetime};
use crate::large;
use crate::record::{self, Completed, millis};
use crate::scripts::{NUMBER_LEN, Script, fenced};

/// The key of the steps of the record under `name`. It is in the same slot.
pub(crate) fn steps_key(name: &str) -> String {
    [name, ":s"].concat()
}

/// The command of `script` on the record under `name` and its steps, by the owner of `claim`.
fn owners_command(script: &Script, name: &str, claim: &Claim, arguments: usize, bytes: usize) -> Cmd {
    let steps = steps_key(name);
    let mut command = script.on_all([name, &steps], 1 + arguments, record::MAX_CLAIM_LEN + bytes);
    command.arg(&record::encode_claim_with_steps(claim)[..]);
    command
}

impl RedisBackend {
    /// Takes over a claim that has steps.
    pub(crate) async fn take_over_with_steps(
        &self,
        name: &str,
        lapsed: &Claim,
        claim: &Claim,
    ) -> Result<Fenced, BackendError> {
        let steps = steps_key(name);
        let bytes = 4 * record::MAX_CLAIM_LEN + 2 * NUMBER_LEN;
        let mut command = scripts::TAKE_OVER.on_all([name, &steps], 6, bytes);
        command
            .arg(&record::encode_claim_with_steps(lapsed)[..])
            .arg(&record::encode_parked(lapsed)[..])
            .arg(&record::encode_claim_with_steps(claim)[..])
            .arg(&record::encode_claim(claim)[..])
            .arg(millis(lapsed.ttl))
            .arg(lifetime(claim));
        self.fenced("taking over a claim with steps", name, &scripts::TAKE_OVER, &command)
            .await
    }

    /// Renews the lease of a claim that may have steps.
    pub(crate) async fn renew_with_steps(&self, name: &str, claim: &Claim) -> Result<Fenced, BackendError> {
        let mut command = owners_command(&scripts::RENEW, name, claim, 1, NUMBER_LEN);
        command.arg(lifetime(claim));
        self.fenced("renewing a lease", name, &scripts::RENEW, &command).await
    }

    /// Completes a claim that may have steps, and deletes them.
    pub(crate) async fn complete_with_steps(
        &self,
        name: &str,
        claim: &Claim,
        completion: &Completion,
        ttl: Duration,
    ) -> Result<Fenced, BackendError> {
        let is_cluster = self.connection.is_cluster();
        if let Completion::Stored(payload) = completion
            && payload.len() > LARGE_PAYLOAD
        {
            let script = scripts::COMPLETE_LARGE.on_cluster(is_cluster);
            let steps = steps_key(name);
            let completing =
                large::complete_with_steps(&self.connection, name, (claim, payload, ttl), (script, &steps));
            return completing.boxed().await.map(fenced);
        }
        let script = scripts::COMPLETE.on_cluster(is_cluster);
        let completed = Completed::new(claim, completion);
        let mut command = owners_command(script, name, claim, 2, completed.len() + NUMBER_LEN);
        command.arg(&completed).arg(millis(ttl));
        self.fenced("completing", name, script, &command).await
    }

    /// Releases a claim that may have steps, and deletes them.
    pub(crate) async fn release_with_steps(&self, name: &str, claim: &Claim) -> Result<Fenced, BackendError> {
        let script = scripts::RELEASE.on_cluster(self.connection.is_cluster());
        let command = owners_command(script, name, claim, 0, 0);
        self.fenced("releasing a claim", name, script, &command).await
    }
}

const WHAT: &str = "reading steps";

/// The steps in an answer of names and steps, one after the other.
pub(crate) fn recorded_steps(flat: Vec<Vec<u8>>) -> Result<RecordedSteps, BackendError> {
    let mut steps = RecordedSteps::new();
    let mut flat = flat.into_iter();
    while let (Some(name), Some(step)) = (flat.next(), flat.next()) {
        let unreadable = |error| BackendError::new(BackendErrorKind::Unreadable, WHAT).with_source(error);
        steps.push((String::from_utf8(name).map_err(unreadable)?, step.into()));
    }
    Ok(steps)
}

impl StepBackend for RedisBackend {
    async fn record_step(
        &self,
        key: &RecordKey,
        claim: &Claim,
        name: &str,
        step: &Bytes,
    ) -> Result<Fenced, BackendError> {
        let record = self.key(key);
        let bytes = name.len() + step.len() + NUMBER_LEN;
        let mut command = owners_command(&scripts::RECORD_STEP, &record, claim, 4, bytes);
        let knows_of_steps = u8::from(claim.has_steps);
        command
            .arg(name)
            .arg(&step[..])
            .arg(lifetime(claim))
            .arg(knows_of_steps);
        let what = "recording a step";
        match self
            .connection
            .invoke(what, &record, &scripts::RECORD_STEP, &command)
            .await?
        {
            scripts::STEPS_ARE_GONE => {
                let context = "the steps of the record are gone; look whether the server evicts keys";
                Err(BackendError::new(BackendErrorKind::Unreadable, context).not_written())
            }
            scripts::FOUND_STEPS_OF_ANOTHER => {
                tracing::error!(
                    key = %key.shown(),
                    "steps of a record that is gone were found, so its request may have run its steps again; look whether the server \
                     evicts keys"
                );
                Ok(Fenced::Applied)
            }
            recorded => Ok(fenced(recorded)),
        }
    }

    async fn read_steps(&self, key: &RecordKey, claim: &Claim) -> Result<Option<RecordedSteps>, BackendError> {
        let record = self.key(key);
        let command = owners_command(&scripts::READ_STEPS, &record, claim, 0, 0);
        let reading = self.connection.invoke(WHAT, &record, &scripts::READ_STEPS, &command);
        let Some(flat): Option<Vec<Vec<u8>>> = reading.await? else {
            return Ok(None);
        };
        recorded_steps(flat).map(Some)
    }

    async fn park(&self, key: &RecordKey, claim: &Claim) -> Result<Fenced, BackendError> {
        let record = self.key(key);
        let script = scripts::PARK.on_cluster(self.connection.is_cluster());
        let mut command = owners_command(script, &record, claim, 2, record::MAX_CLAIM_LEN + NUMBER_LEN);
        command.arg(&record::encode_parked(claim)[..]).arg(millis(claim.ttl));
        self.fenced("parking a record", &record, script, &command).await
    }
}
