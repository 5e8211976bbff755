//! A payment provider as they are: it makes a charge once for each of the keys that it is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use idem_axum::{Execution, Idempotency, MemoryBackend, idempotent};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Charges by what they are for.
type Charges = Arc<Mutex<HashMap<String, u32>>>;

pub(crate) struct Provider {
    charges: Charges,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Charge {
    reference: String,
}

#[idempotent(ttl = "1h", scope = global, in_flight = "wait")]
async fn charge(State(charges): State<Charges>, execution: Execution, Json(charge): Json<Charge>) -> String {
    let mut charges = charges.lock().unwrap_or_else(PoisonError::into_inner);
    *charges.entry(charge.reference).or_default() += 1;
    execution.downstream_key("charge")
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let charges = Charges::default();
        let router = Router::new()
            .route("/charges", post(charge))
            .layer(Idempotency::new(MemoryBackend::new()))
            .with_state(charges.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serving never ends");
        });
        Self {
            charges,
            address,
            serving,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many charges were made for `reference`.
    pub(crate) fn charges(&self, reference: &str) -> u32 {
        let charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
        charges.get(reference).copied().unwrap_or_default()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
