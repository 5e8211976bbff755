//! What the attribute says, in the description that `#[utoipa::path]` makes of the handler.
//!
//! Owns the extension `x-idempotency`, by which the expansion hands its options over. Its words are the attribute's.

use idem_core::AfterCrash;
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::Operation as Described;

use idem_http::{InFlight, Operation, Policy, StoredAnswers};

/// As `idem-macros` has it.
const EXTENSION: &str = "x-idempotency";

/// The options on which a description depends; one that is `None` is open.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    natural_key: bool,
    transaction: bool,
    header: Option<String>,
    required: Option<bool>,
    in_flight: Option<String>,
    after_crash: Option<String>,
    store: Option<String>,
}

/// The values of an option with their words.
type Words<T, const N: usize> = [(&'static str, T); N];

const IN_FLIGHT: Words<InFlight, 3> = [
    ("reject", InFlight::Reject),
    ("wait", InFlight::Wait),
    ("accept", InFlight::Accept),
];
const AFTER_CRASH: Words<AfterCrash, 2> = [("rerun", AfterCrash::Rerun), ("refuse", AfterCrash::Refuse)];
const STORE: Words<StoredAnswers, 3> = [
    ("final", StoredAnswers::Final),
    ("success", StoredAnswers::Success),
    ("all", StoredAnswers::All),
];

fn word<T: Copy + PartialEq>(words: &[(&str, T)], value: Option<T>) -> Option<String> {
    let (word, _) = words.iter().find(|(_, named)| Some(*named) == value)?;
    Some((*word).to_owned())
}

fn value<T: Copy>(words: &[(&str, T)], word: Option<&str>) -> Option<T> {
    let (_, value) = words.iter().find(|(named, _)| Some(*named) == word)?;
    Some(*value)
}

impl Mark {
    /// The mark of a handler: whether its key is an expression, and whether it has an argument of the type `Transaction` or
    /// `Joint`.
    #[must_use]
    pub fn new(operation: &Operation, natural_key: bool, transaction: bool) -> Self {
        let options = operation.policy.set_options();
        Self {
            natural_key,
            transaction,
            header: options.header.map(str::to_owned),
            required: options.required,
            in_flight: word(&IN_FLIGHT, options.in_flight),
            after_crash: word(&AFTER_CRASH, options.after_crash),
            store: word(&STORE, options.store),
        }
    }

    /// Takes the mark off a description, where it has one.
    pub(super) fn take(described: &mut Described) -> Option<Self> {
        let extensions = described.extensions.as_mut()?;
        let mark = extensions.remove(EXTENSION)?;
        if extensions.is_empty() {
            described.extensions = None;
        }
        serde_json::from_value(mark).ok()
    }

    /// The header that the key is in, and whether it has to be there; none where the handler has a natural key.
    pub(super) fn header(&self, defaults: &Policy) -> Option<(String, bool)> {
        if self.natural_key {
            return None;
        }
        let header = self.header.as_deref().unwrap_or(defaults.header());
        Some((header.to_owned(), self.required.unwrap_or(defaults.required())))
    }

    /// Whether its answers are recorded together with its effects.
    pub(super) fn transacts(&self) -> bool {
        self.transaction
    }

    /// The other options.
    pub(super) fn policy(&self, defaults: Policy) -> Policy {
        let mut policy = Policy::new();
        if let Some(in_flight) = value(&IN_FLIGHT, self.in_flight.as_deref()) {
            policy = policy.with_in_flight(in_flight);
        }
        if let Some(after_crash) = value(&AFTER_CRASH, self.after_crash.as_deref()) {
            policy = policy.with_after_crash(after_crash);
        }
        if let Some(store) = value(&STORE, self.store.as_deref()) {
            policy = policy.with_store(store);
        }
        policy.or(defaults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_attribute_says_comes_back_and_beats_the_defaults() {
        let defaults = Policy::new()
            .with_header("x-default")
            .with_required(false)
            .with_in_flight(InFlight::Wait)
            .with_after_crash(AfterCrash::Refuse)
            .with_store(StoredAnswers::All);
        let open = Mark::new(&Operation::new(1000), false, false);
        assert_eq!(open.header(&defaults), Some(("x-default".to_owned(), false)));
        assert_eq!(open.header(&Policy::new()), Some(("idempotency-key".to_owned(), true)));
        for ((_, in_flight), (_, store)) in IN_FLIGHT.into_iter().zip(STORE) {
            for (_, after_crash) in AFTER_CRASH {
                let said = Policy::new()
                    .with_header("x-said")
                    .with_required(true)
                    .with_in_flight(in_flight)
                    .with_after_crash(after_crash)
                    .with_store(store);
                let mark = Mark::new(&Operation::new(1000).with_policy(said), false, false);
                let value = serde_json::to_value(&mark).expect("JSON");
                let mark: Mark = serde_json::from_value(value).expect("a mark");
                assert_eq!(mark.header(&defaults), Some(("x-said".to_owned(), true)));
                let policy = mark.policy(defaults);
                let options = policy.set_options();
                let options = (options.in_flight, options.after_crash, options.store);
                assert_eq!(options, (Some(in_flight), Some(after_crash), Some(store)));
            }
        }
        let (options, defaults) = (open.policy(defaults).set_options(), defaults.set_options());
        assert_eq!(options.in_flight, defaults.in_flight);
        assert_eq!(options.after_crash, defaults.after_crash);
        assert_eq!(options.store, defaults.store);
    }

    #[test]
    fn a_natural_key_is_in_no_header() {
        assert_eq!(
            Mark::new(&Operation::new(1000), true, false).header(&Policy::new()),
            None
        );
    }
}
