//! An operator's settlement, and its result, in a line of JSON.

use std::time::Duration;

use idem_core::Token;
use idem_core::claim::{millis_of_time, time_from_millis};
use idem_core::inspect::{Settled, Settlement, StepChange};
use serde::{Deserialize, Serialize};

use super::lines::Outcome;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SettlementLine {
    Forget,
    /// The new token, when attempt 1 counts as begun, and the step that is changed, with its bytes if it has happened.
    Rerun([u8; Token::LEN], u64, Option<(String, Option<Vec<u8>>)>),
    Complete([u8; Token::LEN], Outcome, Duration),
}

impl SettlementLine {
    pub(super) fn of(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Forget => Self::Forget,
            Settlement::Rerun { token, began_at, step } => Self::Rerun(
                token.to_bytes(),
                millis_of_time(*began_at),
                step.clone().map(|step| match step {
                    StepChange::Done { name, step } => (name, Some(step.to_vec())),
                    StepChange::NotDone { name } => (name, None),
                }),
            ),
            Settlement::Complete { token, completion, ttl } => {
                Self::Complete(token.to_bytes(), Outcome::of(completion), *ttl)
            }
        }
    }

    pub(super) fn settlement(self) -> Settlement {
        match self {
            Self::Forget => Settlement::Forget,
            Self::Rerun(token, began_at, step) => Settlement::Rerun {
                token: Token::from_bytes(token),
                began_at: time_from_millis(began_at),
                step: step.map(|(name, step)| match step {
                    Some(step) => StepChange::Done {
                        name,
                        step: step.into(),
                    },
                    None => StepChange::NotDone { name },
                }),
            },
            Self::Complete(token, outcome, ttl) => Settlement::Complete {
                token: Token::from_bytes(token),
                completion: outcome.completion(),
                ttl,
            },
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SettledLine {
    Applied,
    Changed,
    Live(Duration),
}

impl SettledLine {
    pub(super) fn of(settled: Settled) -> Self {
        match settled {
            Settled::Applied => Self::Applied,
            Settled::Changed => Self::Changed,
            Settled::Live(left) => Self::Live(left),
        }
    }

    pub(super) fn settled(self) -> Settled {
        match self {
            Self::Applied => Settled::Applied,
            Self::Changed => Settled::Changed,
            Self::Live(left) => Settled::Live(left),
        }
    }
}
