//! Witnesses: what the exploration must have reached, so that no rule holds only because nothing happened.
//!
//! Owns their list and their rules.

/// A situation that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Witness {
    /// A duplicate is refused while the first request's claim holds.
    InFlight,
    /// Two handlers of one key run at once: the claim of one of them has lapsed.
    Overlap,
    /// A stored answer is replayed.
    Replay,
    /// A different request meets a claim that holds.
    MismatchInFlight,
    /// A different request meets a lapsed claim.
    MismatchLapsed,
    /// A different request meets an outcome.
    MismatchCompleted,
    /// A client leaves before its handler starts, and the claim is released.
    HangUp,
    /// A client leaves before the handler of a second attempt starts, and the claim is left to its lease.
    HangUpOfLaterAttempt,
    /// A process crashes while its handler runs.
    CrashWhileRunning,
    /// A lapsed claim is taken over.
    TakeOver,
    /// A request is to run as attempt 2.
    SecondAttempt,
    /// A request is to run as attempt 3.
    ThirdAttempt,
    /// `after_crash = "refuse"` refuses a second attempt.
    Refused,
    /// `max_attempts` refuses another attempt.
    TooManyAttempts,
    /// `rerun_within` refuses another attempt.
    TooLate,
    /// A lease is renewed before it lapses.
    Renewed,
    /// A stalled owner renews its lapsed claim, which was not taken over.
    RenewedAfterLapse,
    /// A superseded owner renews.
    SupersededRenewal,
    /// A superseded owner completes.
    SupersededCompletion,
    /// A superseded owner releases.
    SupersededRelease,
    /// A claim is released.
    Released,
    /// A duplicate is told that the outcome is unknown.
    Unknown,
    /// A duplicate is told that the answer was not stored.
    NotStored,
    /// A claim is repeated after its reply was lost.
    RepeatedClaim,
    /// A completion is repeated after its reply was lost.
    RepeatedCompletion,
    /// An outcome expires while requests are still to come.
    Expired,
    /// Nothing is read.
    ReadAbsent,
    /// A claim is read.
    ReadClaim,
    /// An outcome is read.
    ReadCompletion,
}

impl Witness {
    /// Every witness, with the rule that it makes telling.
    pub const ALL: [(&'static str, Self); 29] = [
        ("IDEM-1", Self::Overlap),
        ("IDEM-1", Self::RepeatedClaim),
        ("IDEM-2", Self::Replay),
        ("IDEM-3", Self::MismatchInFlight),
        ("IDEM-3", Self::MismatchLapsed),
        ("IDEM-3", Self::MismatchCompleted),
        ("IDEM-4", Self::InFlight),
        ("IDEM-6", Self::HangUp),
        ("IDEM-6", Self::CrashWhileRunning),
        ("IDEM-7", Self::HangUpOfLaterAttempt),
        ("IDEM-7", Self::TakeOver),
        ("IDEM-7", Self::SecondAttempt),
        ("IDEM-7", Self::ThirdAttempt),
        ("IDEM-7", Self::Refused),
        ("IDEM-7", Self::TooManyAttempts),
        ("IDEM-7", Self::TooLate),
        ("IDEM-7", Self::Renewed),
        ("IDEM-7", Self::RenewedAfterLapse),
        ("IDEM-8", Self::SupersededRenewal),
        ("IDEM-8", Self::SupersededCompletion),
        ("IDEM-8", Self::SupersededRelease),
        ("IDEM-11", Self::Released),
        ("IDEM-11", Self::Unknown),
        ("IDEM-12", Self::NotStored),
        ("IDEM-13", Self::RepeatedCompletion),
        ("IDEM-14", Self::Expired),
        ("IDEM-14", Self::ReadAbsent),
        ("IDEM-14", Self::ReadClaim),
        ("IDEM-14", Self::ReadCompletion),
    ];
}

/// A set of witnesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witnesses(u32);

impl Witnesses {
    /// Whether the set has this one.
    #[must_use]
    pub fn has(self, witness: Witness) -> bool {
        self.0 & (1 << witness as u8) != 0
    }

    pub(super) fn add(&mut self, witness: Witness) {
        self.0 |= 1 << witness as u8;
    }

    pub(super) fn add_if(&mut self, holds: bool, witness: Witness) {
        if holds {
            self.add(witness);
        }
    }

    /// Adds one, as the result of a judgement that found nothing wrong.
    #[expect(clippy::unnecessary_wraps, reason = "the result of a judgement")]
    pub(super) fn found<E>(&mut self, witness: Witness) -> Result<(), E> {
        self.add(witness);
        Ok(())
    }

    pub(super) fn add_all(&mut self, others: Self) {
        self.0 |= others.0;
    }
}
