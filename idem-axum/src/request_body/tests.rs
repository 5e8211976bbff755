//! Who gets which frame, and what is left of a body.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use futures_util::stream;
use futures_util::task::{ArcWake, noop_waker, waker};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use super::*;

/// The argument's side, without the rest of what is known of a request.
struct Held(Arc<RequestBody>);

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.0.lock().poll_argument(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut body = self.0.lock();
        body.argument.is_gone = true;
        body.let_go();
    }
}

fn hash() -> RequestHash {
    RequestHash::new(&Method::POST, &Uri::from_static("/o"), &HeaderMap::new())
}

fn whole(body: &[u8]) -> Fingerprint {
    let mut hash = hash();
    hash.update(body);
    fingerprint::of_request(hash.finish())
}

fn frames(frames: Vec<Result<Frame<Bytes>, axum::Error>>) -> Body {
    Body::new(StreamBody::new(stream::iter(frames)))
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a stream of frames")]
fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, axum::Error> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))])
}

fn shared(source: Body, limit: Option<u64>) -> (Arc<RequestBody>, Held) {
    let body = Arc::new(RequestBody::new(source, Some(hash()), limit, || 7));
    (body.clone(), Held(body))
}

fn read_rest(body: &RequestBody) -> Result<RequestIdentity, Unread> {
    body.read_rest().now_or_never().expect("it is all there")
}

#[tokio::test]
async fn what_the_argument_reads_is_hashed_and_not_held() {
    let (body, held) = shared(
        frames(vec![data(b"ab"), data(b"c"), Ok(Frame::trailers(trailers()))]),
        Some(3),
    );
    assert_eq!(body.compared(), None);
    let read = held.collect().await.expect("no failure");
    assert_eq!(read.trailers(), Some(&trailers()));
    assert_eq!(read.to_bytes(), "abc");
    let compared = body.compared().expect("it has ended");
    assert_eq!((compared.fingerprint, compared.is_incomplete), (whole(b"abc"), false));
    assert!(body.was_read_by_argument());
}

#[tokio::test]
async fn what_the_argument_leaves_is_read_before_the_claim_and_kept_for_an_argument_that_still_has_the_body() {
    let (body, mut held) = shared(
        frames(vec![data(b"ab"), data(b"c"), Ok(Frame::trailers(trailers()))]),
        Some(3),
    );
    let first = held.frame().await.expect("a frame").expect("no failure");
    assert_eq!(first.into_data().expect("data"), "ab");
    assert_eq!(read_rest(&body).expect("within the limit").fingerprint, whole(b"abc"));
    assert_eq!(held.size_hint().exact(), Some(1), "what is left for the argument");
    let rest = held.collect().await.expect("no failure");
    assert_eq!(rest.trailers(), Some(&trailers()));
    assert_eq!(rest.to_bytes(), "c");

    let (body, held) = shared(frames(vec![data(b"ab"), data(b"c")]), Some(3));
    drop(held);
    assert_eq!(read_rest(&body).expect("within the limit").fingerprint, whole(b"abc"));
    assert!(body.lock().ahead.is_none() && !body.was_read_by_argument());
}

#[tokio::test]
async fn a_rest_that_is_too_large_or_fails_is_refused_as_axum_does() {
    let failed = || Err(axum::Error::new("on purpose"));
    for (source, status) in [
        (frames(vec![data(b"ab"), data(b"cd")]), StatusCode::PAYLOAD_TOO_LARGE),
        (Body::from("abcd"), StatusCode::PAYLOAD_TOO_LARGE),
        (frames(vec![data(b"ab"), failed()]), StatusCode::BAD_REQUEST),
    ] {
        let (body, _held) = shared(source, Some(3));
        let unread = read_rest(&body).expect_err("it is refused");
        assert_eq!(unread.into_response().await.status(), status);
    }
}

#[tokio::test]
async fn a_failure_that_the_argument_has_swallowed_leaves_a_part_that_is_no_whole_request() {
    let (body, held) = shared(frames(vec![data(b"ab"), Err(axum::Error::new("on purpose"))]), Some(3));
    let error = held.collect().await.expect_err("it fails");
    assert_eq!(error.to_string(), "on purpose");
    let compared = body.compared().expect("it has ended");
    assert!(compared.is_incomplete && compared.fingerprint.differs_from(&whole(b"ab")));

    // One that was too large for it.
    let (body, mut held) = shared(frames(vec![data(b"ab"), data(b"cd"), data(b"e")]), Some(3));
    for _ in 0..2 {
        held.frame().await.expect("a frame").expect("no failure");
    }
    drop(held);
    let compared = read_rest(&body).expect("it is the argument's to refuse");
    assert!(compared.is_incomplete && compared.fingerprint.differs_from(&whole(b"abcd")));
}

#[tokio::test]
async fn large_bodies_of_known_length_are_handed_out_in_one_piece_that_equal_ones_share() {
    let bytes = vec![b'x'; 256 * 1024];
    let mut read: Vec<Bytes> = Vec::new();
    for _ in 0..2 {
        let (body, mut held) = shared(Body::from(bytes.clone()), Some(1 << 20));
        let frame = held.frame().await.expect("a frame").expect("no failure");
        read.push(frame.into_data().expect("data"));
        assert!(held.frame().await.is_none());
        assert_eq!(body.compared().expect("it has ended").fingerprint, whole(&bytes));
    }
    assert_eq!(read[0], bytes);
    assert_eq!(read[0].as_ptr(), read[1].as_ptr());
}

#[tokio::test]
async fn without_a_comparison_nobody_but_the_argument_reads() {
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let source = stream::unfold(receiver, |mut receiver| async {
        let data = receiver.recv().await?;
        Some((Ok::<_, axum::Error>(Frame::data(data)), receiver))
    });
    let (body, mut held) = shared(Body::new(StreamBody::new(Box::pin(source))), Some(1));
    body.leave_to_argument();
    for sent in ["ab", "cd"] {
        sender.send(sent.into()).expect("it is read");
        let frame = held.frame().await.expect("a frame").expect("no failure");
        assert_eq!(frame.into_data().expect("data"), sent);
    }
    drop(held);
    assert!(sender.is_closed(), "what nobody reads is let go");
}

#[derive(Default)]
struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn whoever_of_the_two_gets_a_frame_wakes_the_other() {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Bytes>();
    let source = stream::poll_fn(move |context| {
        let data = ready!(receiver.poll_recv(context));
        Poll::Ready(data.map(|data| Ok::<_, axum::Error>(Frame::data(data))))
    });
    let (body, mut held) = shared(Body::new(StreamBody::new(source)), None);
    let argument = Arc::new(Woken::default());
    let woken = waker(argument.clone());
    assert!(
        Pin::new(&mut held)
            .poll_frame(&mut Context::from_waker(&woken))
            .is_pending()
    );
    let guard = noop_waker();
    let mut rest = std::pin::pin!(body.read_rest());
    assert!(rest.as_mut().poll(&mut Context::from_waker(&guard)).is_pending());
    sender.send("ab".into()).expect("it is read");
    assert!(rest.as_mut().poll(&mut Context::from_waker(&guard)).is_pending());
    assert!(argument.0.load(Ordering::SeqCst));
    let frame = held.frame().await.expect("a frame").expect("no failure");
    assert_eq!(frame.into_data().expect("data"), "ab");
}
