//! Orders, and the carrier that ships them.
//!
//! Owns the effect, and the errors that it ends with. Does not own where an order comes from: each program has a broker of its own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use idem_task::{Refused, TaskError, Verdict};
use serde::{Deserialize, Serialize};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;

/// What a message says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Given by the producer: a message that is published again has the same one.
    pub id: String,
    /// The goods.
    pub item: String,
    /// Where it goes.
    pub address: String,
}

/// The result of a shipped order, which the record keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// The text on the parcel.
    pub label: String,
}

/// The company that ships. It has a book, with a line for each parcel.
#[derive(Clone, Debug)]
pub struct Carrier {
    book: PathBuf,
}

impl Carrier {
    /// The carrier with this book.
    pub fn new(book: impl Into<PathBuf>) -> Self {
        Self { book: book.into() }
    }

    /// Ships an order. This is the effect that must happen once.
    ///
    /// # Errors
    ///
    /// If there is nowhere to ship it to, or the book cannot be written.
    pub async fn ship(self, order: Order) -> Result<Parcel, ShipError> {
        if order.address.is_empty() {
            return Err(ShipError::NoSuchAddress);
        }
        let mut book = OpenOptions::new().create(true).append(true).open(self.book).await?;
        book.write_all(format!("{}\n", order.id).as_bytes()).await?;
        book.flush().await?;
        let label = format!("{} for {}", order.item, order.address);
        Ok(Parcel { label })
    }
}

/// Why an order is not shipped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Its task has no result.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The message is none.
    #[error("the message is not an order")]
    NotAnOrder(#[from] serde_json::Error),
    /// No carrier finds it.
    #[error("there is no such address")]
    NoSuchAddress,
    /// It may be there later.
    #[error("the carrier is not there")]
    CarrierAway(#[from] io::Error),
}

impl TaskError for ShipError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(refused) => refused.verdict(),
            // No delivery of the message will succeed.
            Self::NotAnOrder(_) | Self::NoSuchAddress => Verdict::SetAside,
            Self::CarrierAway(_) => Verdict::Redeliver(Duration::from_secs(1)),
        }
    }
}
