//! What operators see and settle of a store, on the way to it, and of a broken one.

use super::broken::{Broken, Fault};
use super::random::Way;
use crate::inspect::{
    Cursor, Finding, Inspect, Inspector, LiveClaim, Page, RecordDetails, RecordVersion, Selection, Settled, Settlement,
};
use crate::{Backend, BackendError, RecordKey};

impl<B: Backend> Way<B> {
    fn inspector(&self) -> Inspector<'_> {
        self.store.inspector().expect("it is asked only where there is one")
    }
}

impl<B: Backend> Inspect for Way<B> {
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.pass(Way::inspector(self).scan(selection, after, limit)).await
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        self.pass(Way::inspector(self).inspect(key)).await
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        self.pass(Way::inspector(self).settle(key, version, settlement, live))
            .await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        Way::inspector(self).diagnose().await
    }
}

impl Broken {
    /// The version that the settlement is taken for.
    async fn version_for(&self, key: &RecordKey, version: RecordVersion) -> Result<RecordVersion, BackendError> {
        let shown = Inspect::inspect(&self.store, key).await?;
        let Some(now) = shown.map(|shown| shown.version()) else {
            return Ok(version);
        };
        let is_taken_for_now = match self.fault() {
            Fault::SettlesAnyRecord => true,
            Fault::SettlesAnyPhase => now.token == version.token,
            Fault::SettlesAnySteps => now.is_of_same_claim(&version),
            _ => false,
        };
        Ok(if is_taken_for_now { now } else { version })
    }
}

impl Inspect for Broken {
    async fn scan(&self, selection: &Selection, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
        self.store.scan(selection, after, limit).await
    }

    async fn inspect(&self, key: &RecordKey) -> Result<Option<RecordDetails>, BackendError> {
        let details = Inspect::inspect(&self.store, key).await?;
        Ok(details.map(|mut details| {
            details.record = self.reported(details.record);
            details
        }))
    }

    async fn settle(
        &self,
        key: &RecordKey,
        version: RecordVersion,
        settlement: &Settlement,
        live: LiveClaim,
    ) -> Result<Settled, BackendError> {
        let version = self.version_for(key, version).await?;
        if self.now_and_then(Fault::ForgetsSettlements) {
            return Ok(Settled::Applied);
        }
        let live = if self.has(Fault::SettlesLiveClaims) {
            LiveClaim::Force
        } else {
            live
        };
        let mut settlement = settlement.clone();
        match &mut settlement {
            Settlement::Complete { token, .. } if self.has(Fault::KeepsTheToken) => *token = version.token,
            Settlement::Rerun { .. } if self.has(Fault::RerunsWithoutSteps) => settlement = Settlement::Forget,
            Settlement::Rerun { .. } if self.has(Fault::RerunsWithOwner) => {
                let settled = Inspect::inspect(&self.store, key).await?;
                let is_there = settled.is_some_and(|shown| shown.version() == version);
                return Ok(if is_there { Settled::Applied } else { Settled::Changed });
            }
            _ => {}
        }
        self.store.settle(key, version, &settlement, live).await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BackendError> {
        self.store.diagnose().await
    }
}
