//! What goes over the line between the queue and its consumers: one JSON value a line.

use serde::{Deserialize, Serialize};

use crate::lab::service::Point;

/// Who wants each message. Each of them is a task of its own.
pub(super) const CONSUMERS: [&str; 2] = ["ship", "bill"];

/// One message for one consumer, the same in each delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    /// The id that its producer gave it: the idempotency key.
    pub(super) id: String,
    /// How long the task takes, in milliseconds.
    pub(super) takes: u64,
    /// For how long its result is kept, in milliseconds.
    pub(super) ttl: u64,
    /// Whether a delivery waits for the result of one that runs.
    pub(super) waits: bool,
    /// Whether the task is not run again when its process has died.
    pub(super) refuses: bool,
    pub(super) fails: Option<Failing>,
}

/// How the task of a message fails, before its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Failing {
    /// In the first so many deliveries, with an error that is worth another try.
    Transiently(u32),
    /// In the first delivery, by a panic.
    Panicking,
    /// With an error that is final.
    Finally,
}

/// One delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Delivery {
    pub(super) number: usize,
    /// Which delivery of this message to this consumer it is.
    pub(super) count: u32,
    /// The FIFO partition, if it is in one.
    pub(super) partition: Option<usize>,
    /// Where the consumer's process dies.
    pub(super) die: Option<Point>,
    pub(super) message: Message,
}

/// What is delivered together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Delivered {
    pub(super) batch: usize,
    pub(super) deliveries: Vec<Delivery>,
}

/// What a consumer says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Who it is, first of all.
    Hello { consumer: String },
    /// It still works on the delivery.
    Extend { batch: usize, number: usize },
    /// One answer for each delivery of the batch, in order.
    Done { batch: usize, answers: Vec<Answer> },
}

/// What became of one delivery, as its consumer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) ask: Ask,
    pub(super) outcome: Outcome,
}

/// What is asked of the queue: an [`idem_task::Verdict`] on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    Acknowledge,
    /// After so many milliseconds.
    Redeliver(u64),
    SetAside,
}

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It ran, under this name of a run.
    Ran(String),
    /// It got the result of this run.
    Replayed(String),
    /// It ran, and failed with an error that is worth another try.
    FailedForNow,
    /// It ran, and failed for good.
    FailedForGood,
    /// An earlier delivery failed for good.
    HadFailed,
    InFlight,
    Unknown,
    Unavailable,
    Panicked,
    /// An earlier one of its partition was not acknowledged.
    NotBegun,
    /// What no consumer should see.
    Other(String),
    /// The connection to the consumer broke.
    ConsumerGone,
    /// The queue gave it up, and delivers it again.
    GivenUp,
}

impl Outcome {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ran(_) => "ran",
            Self::Replayed(_) => "result of an earlier delivery",
            Self::FailedForNow => "failed, to be delivered again",
            Self::FailedForGood => "failed for good",
            Self::HadFailed => "an earlier delivery failed for good",
            Self::InFlight => "in flight",
            Self::Unknown => "outcome unknown",
            Self::Unavailable => "backend unavailable",
            Self::Panicked => "panicked",
            Self::NotBegun => "not begun, its partition had stopped",
            Self::Other(_) => "other",
            Self::ConsumerGone => "consumer gone",
            Self::GivenUp => "not answered in time, delivered again",
        }
    }
}
