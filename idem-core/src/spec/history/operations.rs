//! The calls of one key, with their beginnings and ends.
//!
//! Owns how events become operations. Times are microseconds, so that a moment may lie before the first event.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{Call, CallId, Event, Reply};

/// A moment on the recorders' clock, in microseconds.
pub(super) type Moment = i64;

/// Later than every event.
pub(super) const NEVER: Moment = Moment::MAX / 8;

/// What may have changed or shown the record of one key.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) from: Moment,
    pub(super) until: Moment,
    pub(super) action: Action,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a history has few losses")]
pub(super) enum Action {
    /// `reply` is `None` if the call is open.
    Call {
        process: u32,
        call: Call,
        reply: Option<Reply>,
    },
    /// The record may be gone, or what it was before.
    Loss { goes_back: bool },
}

impl Operation {
    pub(super) fn is_call(&self) -> bool {
        matches!(self.action, Action::Call { .. })
    }

    /// Whether the call has no reply.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.action, Action::Call { reply: None, .. })
    }

    /// Whether every explanation must contain the operation.
    pub(super) fn is_certain(&self) -> bool {
        matches!(self.action, Action::Call { reply: Some(_), .. })
    }

    /// The same call without its reply.
    pub(super) fn opened(mut self) -> Self {
        if let Action::Call { reply, .. } = &mut self.action {
            *reply = None;
            self.until = NEVER;
        }
        self
    }
}

pub(super) fn moment(at: Duration) -> Moment {
    Moment::try_from(at.as_micros()).unwrap_or(NEVER)
}

/// The operations of each key, in the order of their beginnings. Calls that certainly changed nothing are left out.
pub(super) fn by_key(events: impl IntoIterator<Item = Event>) -> BTreeMap<String, Vec<Operation>> {
    let mut began: HashMap<CallId, (String, Operation)> = HashMap::new();
    let mut losses = Vec::new();
    // A call may be written by several threads out of order, so that the return comes first.
    let mut returned = Vec::new();
    for event in events {
        match event {
            Event::Began { id, at, key, call } => {
                let operation = Operation {
                    from: moment(at),
                    until: NEVER,
                    action: Action::Call {
                        process: id.process,
                        call,
                        reply: None,
                    },
                };
                began.insert(id, (key, operation));
            }
            Event::Returned { id, at, reply } => returned.push((id, at, reply)),
            Event::Lost { from, to, goes_back } => losses.push(Operation {
                from: moment(from),
                until: moment(to),
                action: Action::Loss { goes_back },
            }),
        }
    }
    for (id, at, reply) in returned {
        let Some(reply) = reply else {
            began.remove(&id);
            continue;
        };
        if let Some((_, operation)) = began.get_mut(&id) {
            operation.until = moment(at);
            if let Action::Call { reply: recorded, .. } = &mut operation.action {
                *recorded = Some(reply);
            }
        }
    }
    let mut keys: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for (key, operation) in began.into_values() {
        keys.entry(key).or_default().push(operation);
    }
    for operations in keys.values_mut() {
        operations.extend(losses.iter().cloned());
        operations.sort_by_key(|operation| (operation.from, operation.until));
    }
    keys
}
