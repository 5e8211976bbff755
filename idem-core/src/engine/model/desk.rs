//! An operator of the model, who looks at records and settles them while processes run and die.
//!
//! Owns what the operator does, and what the oracle concludes from a settlement that took effect. The operator's calls go through a
//! [`Door`] with all the faults of a network.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::door::Door;
use super::oracle::Oracle;
use super::{KEPT_BRIEFLY, Model, RECORD_KEYS, Random, TTL};
use crate::inspect::{
    Cursor, Finding, Inspect, Inspector, LiveClaim, Page, RecordDetails, RecordVersion, Selection, Settled, Settlement,
    StepChange, StepState,
};
use crate::spec::{Call, Reply};
use crate::{BackendError, Completion, RecordKey, Token};

/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an operator's settlement did to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operated {
    /// The request may run again.
    Reopened,
    /// The record has an outcome for this long.
    Completed(Duration),
}

impl Model {
    /// The operator looks at a record, and settles it some time later.
    pub(super) fn operate(&self) {
        let key = self.index(RECORD_KEYS.len());
        let (door, recorder) = (self.desk.clone(), self.desk_recorder.clone());
        let pause = Duration::from_millis(self.random(4_000));
        let mut random = Random(self.random(u64::MAX));
        tokio::spawn(async move {
            let inspector = match &recorder {
                Some(recorder) => Inspector::of(&**recorder),
                None => Inspector::of(&door),
            };
            let shown = timeout(PATIENCE, inspector.inspect(&RECORD_KEYS[key])).await;
            let Ok(Ok(Some(shown))) = shown else { return };
            sleep(pause).await;
            let settlement = door.settlement(key, &shown, &mut random);
            let live = [LiveClaim::Refuse, LiveClaim::Refuse, LiveClaim::Force][random.index(3)];
            let version = shown.version();
            for _ in 0..=random.below(2) {
                let settling = inspector.settle(&RECORD_KEYS[key], version, &settlement, live);
                let _ = timeout(PATIENCE, settling).await;
            }
        });
    }
}

impl Door {
    fn settlement(&self, key: usize, shown: &RecordDetails, random: &mut Random) -> Settlement {
        match random.below(5) {
            0 => Settlement::Forget,
            1 => Settlement::complete(
                Completion::Stored(random.below(u64::MAX).to_be_bytes().to_vec().into()),
                TTL,
            ),
            2 => Settlement::complete(Completion::Unknown, KEPT_BRIEFLY),
            // What was begun and not ended, the operator has found to have happened.
            _ => Settlement::rerun(
                shown
                    .steps()
                    .into_iter()
                    .find(|step| step.state == StepState::Started)
                    .map(|step| {
                        let oracle = &mut self.shared.lock().oracle;
                        let value = oracle.found_done(key, shown.summary.token, &step.name);
                        shown.step_done(&step.name, &value.to_string().into())
                    }),
            ),
        }
    }
}

impl Oracle {
    /// A settlement has reached the store, and changed the record of the claim with this `token`.
    pub(super) fn operated(&mut self, key: usize, token: Token, settlement: &Settlement) {
        let now = Instant::now();
        let slot = &mut self.slots[key];
        slot.changed = now;
        let operated = match settlement {
            Settlement::Complete { ttl, .. } => Operated::Completed(*ttl),
            Settlement::Forget | Settlement::Rerun { .. } => Operated::Reopened,
        };
        let of_claim = slot.of_operator(token).unwrap_or(token);
        if let Some(left) = settlement.leaves() {
            slot.operators.push((left.token, of_claim));
        }
        if let Some(seen) = slot.find(of_claim) {
            seen.operated = Some((now, operated));
        }
        self.counts.operated += 1;
        if let Settlement::Rerun {
            step: Some(StepChange::Done { name, .. }),
            ..
        } = settlement
        {
            self.done_by_operator(key, of_claim, name);
        }
    }
}

impl Inspect for Door {
    async fn scan(&self, _: &Selection, _: Option<&Cursor>, _: usize) -> Result<Page, BackendError> {
        Ok(Page::default())
    }

    /// A read, of which the operator sees more. No time passes between the two.
    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        self.pass(key, Call::Read).await?;
        Inspect::inspect(&self.store, key).await
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        let call = Call::Settle {
            version,
            settlement: settlement.clone(),
            live,
        };
        match self.pass(key, call).await? {
            Reply::Settled(settled) => Ok(settled),
            reply => unreachable!("a settlement is settled: {reply:?}"),
        }
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        Ok(Vec::new())
    }
}
