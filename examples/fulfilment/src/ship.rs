//! The task: one order, shipped once for all deliveries of its message.
//!
//! Owns what an order is, and which errors are final. Does not own where orders come from, or what the broker is told.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use idem_task::{Engine, Refused, TaskError, TaskExt as _, Verdict};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::carrier::{self, Answer, Call};

/// How long a result is kept: longer than the stream keeps its messages, so that a replay finds every result.
pub(crate) const TTL: Duration = Duration::from_hours(7 * 24);

/// How much later an order is tried again whose carrier did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What a customer has ordered; a message of the stream has it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The id that the shop gave it: the key of the task.
    pub id: String,
    /// What is to be shipped.
    pub item: String,
    /// Where to.
    pub address: String,
}

/// The result of a shipped order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// The carrier's number of the shipment.
    pub shipment: u64,
}

/// Why an order is not shipped.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The task did not run.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The carrier does not know the address. No retry changes that.
    #[error("there is no such address")]
    NoSuchAddress,
    /// Nobody knows whether the carrier has got the call; it knows the call by its key if it comes again.
    #[error("the carrier did not answer")]
    Carrier(#[source] io::Error),
}

impl TaskError for ShipError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(refused) => refused.verdict(),
            Self::NoSuchAddress => Verdict::SetAside,
            Self::Carrier(_) => Verdict::Redeliver(RETRY),
        }
    }
}

/// What ships orders.
#[derive(Clone, Debug)]
pub struct Shipping {
    /// Knows which orders have been shipped.
    pub engine: Engine,
    /// Where the carrier listens.
    pub carrier: SocketAddr,
    /// How long it takes to pack an order.
    pub packing: Duration,
    /// How long the claim of a process that died keeps others from its order.
    pub lease: Duration,
}

impl Shipping {
    /// Ships the order, or returns the result of the delivery that has shipped it.
    ///
    /// Calls `renewed` about every third of the lease while the order is worked on.
    ///
    /// # Errors
    ///
    /// [`ShipError`], whose verdict says what to tell the broker.
    pub async fn ship(&self, order: Order, renewed: impl Fn() + Send + Sync + 'static) -> Result<Shipped, ShipError> {
        let Self { carrier, packing, .. } = *self;
        let task = self.engine.task("ship").global().key(&order.id).ttl(TTL);
        let task = task.lease(self.lease).compare(&order).on_renew(renewed);
        task.run(move |execution| async move {
            sleep(packing).await;
            let call = Call {
                // The same for every attempt: if this process dies before the result is recorded, the next attempt calls again, and
                // the carrier does not ship again.
                key: execution.downstream_key("carrier"),
                order: order.id,
                address: order.address,
            };
            match carrier::call(carrier, &call).await.map_err(ShipError::Carrier)? {
                Answer::Shipped { shipment } => Ok(Shipped { shipment }),
                Answer::NoSuchAddress => Err(ShipError::NoSuchAddress),
            }
        })
        .await
    }
}
