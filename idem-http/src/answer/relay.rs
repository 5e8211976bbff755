//! A body that reaches the client while it is copied.
//!
//! Owns both sides: the copying one goes on though the client has left, and gives up when the copy grows too large or
//! takes too long; the client's side gets every byte as soon as it is there, and what is left when copying has ended.
//! What waits for a slow client is joined to one buffer, so it is never more than the copy.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use idem_core::{Completion, RecordOutcome, StreamedOutcome};
use tokio::time::{Instant, timeout_at};

use super::{NOT_STORED, data};
use crate::body::{BoxError, HandlerBody, Piece};

/// How long a body may take to end if it is to be stored. An endless one must not hold its claim for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// The client's side.
pub(crate) struct Relay<B> {
    shared: Arc<Shared<B>>,
    /// What is left when copying has ended: a piece, and the body behind it.
    rest: Option<(Option<Piece>, Option<B>)>,
    /// What is left of the length that the handler's body announced.
    announced: Option<u64>,
}

/// How a body goes on where its copy ends.
pub(super) enum BodyEnd<B> {
    /// Not at all: it has ended.
    Whole,
    /// With this piece, if any, and then as the body says.
    Rest(Option<Piece>, B),
    /// It should have gone on, so the client must not take this for the end.
    CutShort,
}

struct Shared<B>(Mutex<State<B>>);

struct State<B> {
    unsent: BytesMut,
    end: Option<BodyEnd<B>>,
    client: Option<Waker>,
    client_has_left: bool,
}

/// The copying side. Dropped without an end, it has been stopped half-way.
struct Copier<B>(Arc<Shared<B>>);

/// How long the body may and must be.
struct Limits {
    announced: Option<u64>,
    max: usize,
}

/// Keeps the end of a whole body from the client until it is dropped.
struct EndOnDrop<B>(Copier<B>);

impl<B> Shared<B> {
    fn new(unsent: &[u8], end: Option<BodyEnd<B>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            unsent: unsent.into(),
            end,
            client: None,
            client_has_left: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing in here panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Relays `body`, of which `start` was there at once, to the returned body, and copies up to `max` bytes of it behind
/// `payload`.
pub(super) fn copy<B: HandlerBody>(
    body: B,
    mut payload: Vec<u8>,
    start: &[u8],
    announced: Option<u64>,
    max: usize,
) -> (Relay<B>, impl Future<Output = StreamedOutcome> + Send + 'static) {
    let copier = Copier(Shared::new(start, None));
    let relay = Relay {
        shared: copier.0.clone(),
        rest: None,
        announced,
    };
    payload.extend_from_slice(start);
    (
        relay,
        copier.copy(body, payload, start.len(), Limits { announced, max }),
    )
}

impl<B: HandlerBody> Copier<B> {
    async fn copy(self, mut body: B, mut payload: Vec<u8>, mut len: usize, limits: Limits) -> StreamedOutcome {
        let Limits { announced, max } = limits;
        let limit = Instant::now() + LIMIT;
        loop {
            let piece = match timeout_at(limit, body.frame()).await {
                Ok(Some(piece)) => piece.map_err(Into::into),
                Ok(None) if announced.is_none_or(|announced| announced == len as u64) => {
                    // A backend in memory counts the bytes of the payload, and not what it had reserved to grow.
                    payload.shrink_to_fit();
                    return StreamedOutcome {
                        outcome: RecordOutcome::complete(Completion::Stored(payload.into())),
                        // A client that has seen the end of the body finds it replayed.
                        until_recorded: Box::new(EndOnDrop(self)),
                    };
                }
                Ok(None) => return self.give_up(BodyEnd::Whole),
                Err(_elapsed) => return self.give_up(BodyEnd::Rest(None, body)),
            };
            match data(piece) {
                Ok(data) if len + data.len() <= max => {
                    len += data.len();
                    payload.extend_from_slice(&data);
                    self.send(&data);
                }
                Ok(data) => return self.give_up(BodyEnd::Rest(Some(Ok(Frame::data(data))), body)),
                Err(unfit) => return self.give_up(BodyEnd::Rest(Some(unfit), body)),
            }
            // A body that is always ready reaches neither the time-out nor anybody else on this thread.
            if Instant::now() >= limit {
                return self.give_up(BodyEnd::Rest(None, body));
            }
            tokio::task::consume_budget().await;
        }
    }
}

impl<B: Send + 'static> Copier<B> {
    fn send(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if !bytes.is_empty() && !state.client_has_left {
            state.unsent.extend_from_slice(bytes);
            state.wake();
        }
    }

    fn give_up(self, end: BodyEnd<B>) -> StreamedOutcome {
        self.0.lock().finish(end);
        StreamedOutcome {
            outcome: NOT_STORED,
            until_recorded: Box::new(()),
        }
    }
}

impl<B> Drop for Copier<B> {
    fn drop(&mut self) {
        self.0.lock().finish(BodyEnd::CutShort);
    }
}

impl<B> Drop for EndOnDrop<B> {
    fn drop(&mut self) {
        self.0.0.lock().finish(BodyEnd::Whole);
    }
}

impl<B> State<B> {
    /// The first end counts.
    fn finish(&mut self, end: BodyEnd<B>) {
        if self.end.is_none() && !self.client_has_left {
            self.end = Some(end);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(client) = self.client.take() {
            client.wake();
        }
    }
}

impl<B> Relay<B> {
    /// A body of `start` and then `end`.
    pub(super) fn ending(start: &[u8], end: BodyEnd<B>, announced: Option<u64>) -> Self {
        Self {
            shared: Shared::new(start, Some(end)),
            rest: None,
            announced,
        }
    }
}

impl<B: HandlerBody> http_body::Body for Relay<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let Some((piece, body)) = &mut self.rest {
            return match piece.take() {
                Some(piece) => Poll::Ready(Some(piece)),
                None => match body {
                    Some(body) => {
                        let polled = Pin::new(body).poll_frame(context);
                        polled.map(|piece| piece.map(|piece| piece.map_err(Into::into)))
                    }
                    None => Poll::Ready(None),
                },
            };
        }
        let end = {
            let mut state = self.shared.lock();
            if !state.unsent.is_empty() {
                let data = state.unsent.split().freeze();
                drop(state);
                self.announced = self.announced.map(|left| left.saturating_sub(data.len() as u64));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let Some(end) = state.end.take() else {
                state.client = Some(context.waker().clone());
                return Poll::Pending;
            };
            end
        };
        let (piece, body) = match end {
            BodyEnd::Whole => (None, None),
            BodyEnd::Rest(piece, body) => (piece, Some(body)),
            BodyEnd::CutShort => (Some(Err("the body was cut short".into())), None),
        };
        self.rest = Some((piece, body));
        self.poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<B> Drop for Relay<B> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.client_has_left = true;
        state.unsent = BytesMut::new();
        let rest = state.end.take();
        drop(state);
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    #[test]
    fn nothing_is_kept_for_a_client_that_has_left() {
        let copier = Copier(Shared::new(b"", None));
        let shared = copier.0.clone();
        let relay = Relay {
            shared: shared.clone(),
            rest: None,
            announced: None,
        };
        copier.send(b"before");
        drop(relay);
        assert!(shared.lock().unsent.is_empty());
        copier.send(b"after");
        copier.give_up(BodyEnd::Rest(None, Body::empty()));
        let state = shared.lock();
        assert!(state.unsent.is_empty() && state.end.is_none());
    }
}
