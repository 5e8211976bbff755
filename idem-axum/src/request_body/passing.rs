//! The body as the argument has it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::captured::CapturedRequest;

/// The argument's hold on its request's body.
pub(crate) struct Passing(pub(crate) Arc<CapturedRequest>);

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.body.lock().poll_argument(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.lock().size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.lock().is_end_stream()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut body = self.0.body.lock();
        body.argument.is_gone = true;
        body.let_go();
    }
}

/// A body that fails at once.
pub(super) struct Failing(pub(super) Option<BoxError>);

impl Body for Failing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

/// A body of no known length; without a byte itself, so that nothing is allocated for it.
pub(super) struct Unbounded;

impl Body for Unbounded {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}
