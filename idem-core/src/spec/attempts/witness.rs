//! What an exploration has to reach, so that no rule holds for want of a case.

/// A situation that has to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// A record is completed.
    Completed,
    /// A record with steps is parked.
    Parked,
    /// An attempt goes on after a parked one.
    Continued,
    /// An attempt takes a lapsed claim with steps over.
    TookOver,
    /// An attempt does not call a body that an earlier one has recorded.
    Resumed,
    /// An attempt stops at a step that was begun.
    Interrupted,
    /// A step that was begun is reconciled, and has happened.
    FoundToHaveHappened,
    /// A step that was begun is reconciled, and has not happened.
    FoundNotToHaveHappened,
    /// A start whose call has failed is found in the record.
    StartFound,
    /// A start whose call has failed is not found in the record.
    StartNotFound,
    /// A call takes effect after its attempt has ended.
    TookEffectLate,
    /// A call of a superseded attempt is refused.
    Superseded,
    /// A superseded attempt calls a body.
    CalledWhileSuperseded,
    /// A record with steps expires.
    Expired,
    /// A record is begun anew after one with steps.
    BegunAnew,
    /// An operator removes a record.
    Forgotten,
    /// An operator lets a request run again with its steps.
    RerunWithSteps,
    /// An operator gives a record an outcome.
    CompletedByOperator,
    /// An operator is refused, because the claim is live.
    RefusedLive,
    /// An operator is refused, because the record has changed.
    FoundChanged,
    /// An operator settles a live claim by force.
    Forced,
    /// An operator's call takes effect late.
    SettledLate,
}

impl Witness {
    /// Each of them.
    pub const ALL: [Self; 22] = [
        Self::Completed,
        Self::Parked,
        Self::Continued,
        Self::TookOver,
        Self::Resumed,
        Self::Interrupted,
        Self::FoundToHaveHappened,
        Self::FoundNotToHaveHappened,
        Self::StartFound,
        Self::StartNotFound,
        Self::TookEffectLate,
        Self::Superseded,
        Self::CalledWhileSuperseded,
        Self::Expired,
        Self::BegunAnew,
        Self::Forgotten,
        Self::RerunWithSteps,
        Self::CompletedByOperator,
        Self::RefusedLive,
        Self::FoundChanged,
        Self::Forced,
        Self::SettledLate,
    ];
}
