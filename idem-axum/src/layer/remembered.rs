//! A request's body that is read ahead, and can be read again.
//!
//! Owns the frames that were read, where a service only observes: if the body is too large to be compared, or breaks off, the
//! inner service still gets all of it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

/// A frame, or what the body has failed with.
type Item = Result<Frame<Bytes>, BoxError>;

/// The frames of a body that were read ahead, and the unread rest.
#[derive(Clone)]
pub(super) struct Remembered(Arc<Mutex<State>>);

struct State {
    read: VecDeque<Item>,
    rest: Body,
}

/// The body as it is read ahead.
pub(super) struct Ahead(Remembered);

/// The body from its start.
struct Again(Remembered);

impl Remembered {
    pub(super) fn new(body: Body) -> Self {
        let read = VecDeque::new();
        Self(Arc::new(Mutex::new(State { read, rest: body })))
    }

    /// To be read ahead.
    pub(super) fn ahead(&self) -> Ahead {
        Ahead(self.clone())
    }

    /// To be read from its start. Nothing reads ahead any more.
    pub(super) fn again(self) -> Body {
        Body::new(Again(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Remembered {
    /// Shows no byte of a request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl HttpBody for Ahead {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.0.lock();
        let item = match ready!(Pin::new(&mut state.rest).poll_frame(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                state.read.push_back(Err(error.into_inner()));
                return Poll::Ready(Some(Err("the body broke off".into())));
            }
            Some(Ok(frame)) => frame,
        };
        let copy = match (item.data_ref(), item.trailers_ref()) {
            (Some(data), _) => Some(Frame::data(data.clone())),
            (None, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
            (None, None) => None,
        };
        state.read.extend(copy.map(Ok));
        Poll::Ready(Some(Ok(item)))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().rest.size_hint()
    }
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.0.lock();
        match state.read.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            // As it was before axum wrapped it, because axum is about to wrap it again.
            None => Pin::new(&mut state.rest)
                .poll_frame(context)
                .map_err(axum::Error::into_inner),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        let data = state.read.iter().filter_map(|item| item.as_ref().ok()?.data_ref());
        let read = data.map(|data| data.len() as u64).sum::<u64>();
        let rest = state.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}
