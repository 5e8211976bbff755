//! The tenant who has done nothing to anybody.
//!
//! Owns what such a client sends, at its own pace, and whether it gets what it would get if it were alone.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::{Answer, Client, OTHER_TENANT, Order};

/// How many such clients there are, and how long each rests between two orders.
const CLIENTS: usize = 4;
const REST: Duration = Duration::from_millis(20);

/// For longer than this nobody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the tenant has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How long each new order took, and each replay; the fastest first once it is whole.
    pub(super) orders: Vec<Duration>,
    pub(super) replays: Vec<Duration>,
    /// What it should not have got.
    pub(super) errors: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.orders.extend(other.orders);
        self.replays.extend(other.replays);
        self.errors.extend(other.errors);
    }
}

/// Lets the tenant order while `goes_on` says so. `phase` tells its keys from those of another time.
pub(super) async fn live(client: &Client, phase: &str, goes_on: impl Fn() -> bool) -> Seen {
    let mut seen = Seen::default();
    for round in 0_u64.. {
        if !goes_on() {
            break;
        }
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let (client, key) = (client.clone(), format!("{phase} {number} {round}"));
            clients.spawn(async move { order(&client, &key).await });
        }
        for order in clients.join_all().await {
            seen.add(order);
        }
        sleep(REST).await;
    }
    seen.orders.sort_unstable();
    seen.replays.sort_unstable();
    seen
}

/// A new order, the same once more, and another one under its key.
async fn order(client: &Client, key: &str) -> Seen {
    let mut seen = Seen::default();
    let order = Order::new(key);
    let Some(first) = send(client, key, &order, &mut seen.orders).await else {
        seen.errors.push(format!("{key}: no answer"));
        return seen;
    };
    if first.status != StatusCode::CREATED || first.is_replay() || first.says_not_stored() {
        seen.errors.push(format!("{key}: {first:?}"));
        return seen;
    }
    match send(client, key, &order, &mut seen.replays).await {
        Some(again) if again.is_replay() && again.clone().without_marker() == first.without_marker() => {}
        again => seen.errors.push(format!("{key}, replayed: {again:?}")),
    }
    let other = Order::new("something else");
    match send(client, key, &other, &mut Vec::new()).await {
        Some(refused) if refused.status == StatusCode::UNPROCESSABLE_ENTITY => {}
        refused => seen.errors.push(format!("{key}, used for something else: {refused:?}")),
    }
    seen
}

async fn send(client: &Client, key: &str, order: &Order, times: &mut Vec<Duration>) -> Option<Answer> {
    let asked = Instant::now();
    let call = client.order(key, order).tenant(OTHER_TENANT);
    let answer = timeout(PATIENCE, call.try_send()).await;
    times.push(asked.elapsed());
    answer.ok()?.ok()
}
