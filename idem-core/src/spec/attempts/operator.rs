//! An operator beside the attempts: who looks at the record at some moment, and settles it at a later one.
//!
//! Owns the operator's moves and what is checked at each. The operator settles once. The call may take effect late, and its reply may
//! be lost, in which case it is sent again.

use std::time::SystemTime;

use super::search::{Broken, Search};
use super::witness::Witness;
use super::world::{B, DONE, NOW, Rule, World};
use crate::inspect::{LiveClaim, RecordVersion, Settled, Settlement, StepChange};
use crate::spec::{Call, Reply, State};
use crate::{ClaimPolicy, Completion, Token};

/// The token of what the operator leaves.
const FRESH: Token = Token::from_bytes([u8::MAX; Token::LEN]);

/// How far the operator has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Desk {
    /// There is no operator, or the operator has finished.
    Empty,
    /// The operator has not looked at the record.
    Idle,
    /// The operator has seen the record.
    Shown(Shown),
    /// The call is on its way, and takes effect at some later moment.
    Sent(Shown, Change, LiveClaim),
    /// The call has taken effect, and its reply is lost.
    Again(Shown, Change, LiveClaim),
}

/// What the operator has seen, and what had happened by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    version: RecordVersion,
    /// How many claims there were.
    claims: u8,
    /// How many claims had been completed or parked.
    ends: u8,
    /// How many steps had been recorded, begun or ended.
    records: u8,
}

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Change {
    Forget,
    Rerun,
    /// Step `b` has happened.
    RerunAfterB,
    /// Step `b` has not happened.
    RerunWithoutB,
    Complete,
}

impl Change {
    const ALL: [Self; 5] = [
        Self::Forget,
        Self::Rerun,
        Self::RerunAfterB,
        Self::RerunWithoutB,
        Self::Complete,
    ];

    fn settlement(self) -> Settlement {
        let (token, began_at) = (FRESH, SystemTime::UNIX_EPOCH);
        let done = StepChange::Done {
            name: B.to_owned(),
            step: DONE,
        };
        match self {
            Self::Forget => Settlement::Forget,
            Self::Rerun => Settlement::Rerun {
                token,
                began_at,
                step: None,
            },
            Self::RerunAfterB => Settlement::Rerun {
                token,
                began_at,
                step: Some(done),
            },
            Self::RerunWithoutB => Settlement::Rerun {
                token,
                began_at,
                step: Some(StepChange::NotDone { name: B.to_owned() }),
            },
            Self::Complete => Settlement::Complete {
                token,
                completion: Completion::NotStored,
                ttl: ClaimPolicy::MAX_TTL,
            },
        }
    }
}

impl Search<'_> {
    /// Makes each move of the operator that is possible in one state.
    pub(super) fn operate(&mut self, world: &World) -> Result<(), Broken> {
        match world.desk {
            Desk::Empty => {}
            Desk::Idle => self.look(world),
            Desk::Shown(shown) => {
                for change in Change::ALL {
                    for live in [LiveClaim::Refuse, LiveClaim::Force] {
                        self.settle(world, shown, change, live)?;
                        let mut sent = world.clone();
                        if sent.take_fault() {
                            sent.desk = Desk::Sent(shown, change, live);
                            self.add(sent, format!("the operator's {change:?} is on its way"));
                        }
                    }
                }
            }
            Desk::Sent(shown, change, live) => {
                if self.settle(world, shown, change, live)? {
                    self.saw(Witness::SettledLate);
                }
            }
            Desk::Again(_, change, live) => self.settle_again(world, change, live)?,
        }
        Ok(())
    }

    fn look(&mut self, world: &World) {
        if let Some(version) = world.store.at(NOW).version() {
            let mut shown = world.clone();
            shown.desk = Desk::Shown(Shown {
                version,
                claims: world.truth.claims.iter().max().copied().unwrap_or_default(),
                ends: world.truth.ends,
                records: world.truth.recorded,
            });
            self.add(shown, format!("the operator sees {version:?}"));
        }
    }

    /// The operator's call takes effect, and its reply arrives or is lost; whether it has changed the record.
    fn settle(&mut self, world: &World, shown: Shown, change: Change, live: LiveClaim) -> Result<bool, Broken> {
        let call = Call::Settle {
            version: shown.version,
            settlement: change.settlement(),
            live,
        };
        let (store, reply) = (self.mutant.step)(&world.store, NOW, &call);
        let by = format!("the operator's {change:?}, {live:?}: {reply:?}");
        let mut settled = world.clone();
        settled.desk = Desk::Empty;
        settled.store = store;
        if reply != Reply::Settled(Settled::Applied) {
            self.check(settled.store.at(NOW) == world.store.at(NOW), Rule::SettledUnseen, &by)?;
            self.saw(match reply {
                Reply::Settled(Settled::Live(_)) => Witness::RefusedLive,
                _ => Witness::FoundChanged,
            });
            self.add(settled, by);
            return Ok(false);
        }
        let was_live = matches!(world.store.at(NOW), State::Claimed { lapses, .. } if *lapses > NOW);
        self.check(!was_live || live == LiveClaim::Force, Rule::LiveSettled, &by)?;
        let claims = world.truth.claims.iter().max().copied().unwrap_or_default();
        let is_as_shown = (claims, world.truth.ends, world.truth.recorded) == (shown.claims, shown.ends, shown.records)
            && !world.truth.is_over;
        self.check(is_as_shown, Rule::SettledUnseen, &by)?;
        if was_live {
            self.saw(Witness::Forced);
        }
        self.learn(&mut settled, change);
        self.check_store(&settled, &by)?;
        let mut lost = settled.clone();
        if lost.take_fault() {
            lost.desk = Desk::Again(shown, change, live);
            self.add(lost, format!("{by}, which is lost"));
        }
        self.add(settled, by);
        Ok(true)
    }

    /// What is true once the settlement has been applied.
    fn learn(&mut self, settled: &mut World, change: Change) {
        settled.truth.is_settled = true;
        let witness = match (change, settled.store.at(NOW)) {
            (Change::Complete, _) => {
                settled.truth.is_closed = true;
                Witness::CompletedByOperator
            }
            (_, State::Absent) => {
                settled.truth.is_over = true;
                Witness::Forgotten
            }
            _ => {
                if change == Change::RerunWithoutB {
                    // The operator has found out that it did not happen, and takes it back from what was acknowledged.
                    settled.truth.started = false;
                    settled.truth.acknowledged[1] = None;
                    settled.truth.bodies_of_b = 0;
                    settled.truth.is_denied = true;
                }
                if change == Change::RerunAfterB {
                    let last = settled.truth.claims.iter().max().copied();
                    settled.truth.acknowledged[1] = last;
                }
                Witness::RerunWithSteps
            }
        };
        self.saw(witness);
    }

    /// The call is sent again whose reply was lost. It changes nothing any more.
    fn settle_again(&mut self, world: &World, change: Change, live: LiveClaim) -> Result<(), Broken> {
        let Desk::Again(shown, ..) = world.desk else {
            return Ok(());
        };
        let call = Call::Settle {
            version: shown.version,
            settlement: change.settlement(),
            live,
        };
        let (store, reply) = (self.mutant.step)(&world.store, NOW, &call);
        let by = format!("the operator's {change:?} again: {reply:?}");
        let is_same = store.at(NOW).version() == world.store.at(NOW).version();
        self.check(is_same, Rule::SettledUnseen, &by)?;
        let mut again = world.clone();
        (again.store, again.desk) = (store, Desk::Empty);
        self.check_store(&again, &by)?;
        self.add(again, by);
        Ok(())
    }
}
