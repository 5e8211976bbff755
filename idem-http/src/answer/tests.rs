//! Bodies that no well-behaved handler makes, and clients that read slowly or not at all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as _, SizeHint};
use tokio::time::{Instant, advance};

use super::*;

mod verdicts;

/// Plays a script.
struct Scripted {
    steps: VecDeque<Step>,
    announced: Option<u64>,
}

enum Step {
    Data(Bytes),
    /// Not ready, once.
    Wait,
    /// Not ready, ever.
    Stall,
    Panic,
    /// The same data for ever.
    Endless(Bytes),
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = crate::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Wait) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Stall) => {
                self.steps.push_front(Step::Stall);
                Poll::Pending
            }
            Some(Step::Panic) => panic!("in a body, on purpose"),
            Some(Step::Endless(data)) => {
                self.steps.push_front(Step::Endless(data.clone()));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

const MAX: usize = 1024;

fn rules() -> AnswerRules {
    AnswerRules {
        stored: StoredAnswers::Final,
        refuses_reruns: false,
        max_response: MAX,
        unstored_headers: Arc::default(),
        to_head: false,
        passes_verdict: false,
    }
}

fn respond(
    announced: Option<u64>,
    steps: impl IntoIterator<Item = Step>,
) -> HandlerResult<Response<ResponseBody<Body>>> {
    let steps = steps.into_iter().collect();
    finish(Response::new(Body::new(Scripted { steps, announced })), &rules())
}

fn some(len: usize) -> Step {
    Step::Data(vec![b'x'; len].into())
}

fn at_once(finished: HandlerResult<Response<ResponseBody<Body>>>) -> (ResponseBody<Body>, RecordOutcome) {
    match finished {
        HandlerResult::Whole { answer, outcome } => (answer.into_body(), outcome),
        _ => panic!("it is there at once"),
    }
}

fn streaming(
    finished: HandlerResult<Response<ResponseBody<Body>>>,
) -> (
    ResponseBody<Body>,
    futures_util::future::BoxFuture<'static, StreamedOutcome>,
) {
    match finished {
        HandlerResult::Streaming { answer, outcome } => (answer.into_body(), outcome),
        _ => panic!("it is not there yet"),
    }
}

fn stored_len(outcome: &RecordOutcome) -> Option<usize> {
    match outcome {
        RecordOutcome::Complete {
            completion: Completion::Stored(payload),
            ..
        } => {
            let body = stored::decode(payload.clone())?.into_body();
            let collected = body.collect().now_or_never()?.ok()?;
            Some(collected.to_bytes().len())
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_body_in_many_pieces_that_are_there_at_once_is_whole() {
    let (body, outcome) = at_once(respond(None, [some(1), some(0), some(2), some(3)]));
    assert_eq!(stored_len(&outcome), Some(6));
    assert_eq!(body.collect().await.expect("no failure").to_bytes(), "xxxxxx");
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_reaches_the_client_so_and_is_not_stored() {
    let (body, outcome) = at_once(respond(Some(10), [some(5)]));
    assert_eq!(outcome, NOT_STORED);
    assert_eq!(
        body.size_hint().exact(),
        Some(10),
        "the server notices that it is cut short"
    );
    assert_eq!(body.collect().await.expect("no failure").to_bytes().len(), 5);

    let (body, ending) = streaming(respond(Some(10), [some(5), Step::Wait]));
    let (body, ending) = tokio::join!(body.collect(), ending);
    assert_eq!(ending.outcome, NOT_STORED);
    assert_eq!(body.expect("no failure").to_bytes().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_known_length_that_stalls_reaches_the_client_as_far_as_it_goes_and_holds_its_claim_for_a_while() {
    let (mut body, ending) = streaming(respond(Some(10), [some(5), Step::Stall]));
    assert_eq!(body.size_hint().exact(), Some(10));
    let first = body.frame().await.expect("a frame").expect("no failure");
    assert_eq!(first.into_data().expect("data").len(), 5);
    assert_eq!(body.size_hint().exact(), Some(5), "what is left");
    let before = Instant::now();
    assert_eq!(ending.await.outcome, NOT_STORED);
    assert!(before.elapsed() <= Duration::from_secs(31));
}

#[tokio::test]
async fn a_panic_half_way_is_cut_short_for_the_client_and_not_stored() {
    let (body, outcome) = at_once(respond(None, [some(5), Step::Panic]));
    assert_eq!(outcome, NOT_STORED);
    assert!(body.collect().await.is_err());

    let (body, ending) = streaming(respond(None, [some(5), Step::Wait, Step::Panic]));
    let ended = tokio::spawn(ending).await;
    assert!(
        ended.is_err_and(|error| error.is_panic()),
        "the engine keeps no answer then"
    );
    assert!(body.collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_and_never_ends_gives_way_to_others_and_is_given_up() {
    for data in ["", "x"] {
        let (body, ending) = streaming(respond(None, [Step::Wait, Step::Endless(data.into())]));
        let others = async {
            // On this one thread, time passes only if the body lets it.
            tokio::task::yield_now().await;
            advance(Duration::from_secs(31)).await;
        };
        let (ending, ()) = tokio::join!(ending, others);
        assert_eq!(ending.outcome, NOT_STORED);
        drop(body);
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_client_is_no_more_than_the_copy() {
    let pieces = (0..MAX).map(|_| some(1));
    let (mut body, ending) = streaming(respond(None, [Step::Wait].into_iter().chain(pieces)));
    let ending = ending.await;
    assert_eq!(stored_len(&ending.outcome), Some(MAX));
    let frame = body.frame().await.expect("a frame").expect("no failure");
    assert_eq!(frame.into_data().expect("data").len(), MAX, "joined to one");
    assert!(body.frame().now_or_never().is_none(), "the end waits for the record");
    drop(ending);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_client_that_has_left_does_not_end_the_copy() {
    let (body, ending) = streaming(respond(None, [some(1), Step::Wait, some(2)]));
    drop(body);
    assert_eq!(stored_len(&ending.await.outcome), Some(3));
}

fn respond_with(
    status: u16,
    lines: &[&'static str],
    body: Body,
    rules: &AnswerRules,
) -> HandlerResult<Response<ResponseBody<Body>>> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for line in lines {
        response
            .headers_mut()
            .append(CONTENT_LENGTH, HeaderValue::from_static(line));
    }
    finish(response, rules)
}

#[tokio::test]
async fn a_body_of_another_length_than_its_header_says_is_not_stored() {
    let table: [(&[&str], bool); 6] = [
        (&["3"], true),
        (&["3", "3"], true),
        (&["4"], false),
        (&["2"], false),
        (&["3", "4"], false),
        (&["three"], false),
    ];
    for (lines, is_stored) in table {
        let (_, outcome) = at_once(respond_with(200, lines, "xxx".into(), &rules()));
        assert_eq!(stored_len(&outcome).is_some(), is_stored, "{lines:?}");

        let steps = [some(1), Step::Wait, some(2)].into_iter().collect();
        let announced = None;
        let body = Body::new(Scripted { steps, announced });
        let outcome = match respond_with(200, lines, body, &rules()) {
            HandlerResult::Whole { outcome, .. } => outcome,
            HandlerResult::Streaming { outcome, .. } => outcome.await.outcome,
            HandlerResult::Joint { .. } => panic!("nothing is joined"),
        };
        assert_eq!(stored_len(&outcome).is_some(), is_stored, "{lines:?}, streamed");
    }
}

#[test]
fn a_length_that_is_not_about_this_body_is_not_compared_with_it() {
    let to_head = AnswerRules {
        to_head: true,
        ..rules()
    };
    for (status, rules) in [(200, to_head), (304, rules()), (204, rules())] {
        let (_, outcome) = at_once(respond_with(status, &["1234"], Body::empty(), &rules));
        assert_eq!(stored_len(&outcome), Some(0), "{status}");
    }
}

#[tokio::test]
async fn a_replay_tells_the_length_if_the_first_answer_did() {
    for announced in [None, Some(3)] {
        let (body, ending) = streaming(respond(announced, [some(1), Step::Wait, some(2)]));
        let RecordOutcome::Complete {
            completion: Completion::Stored(payload),
            ..
        } = ending.await.outcome
        else {
            panic!("it is stored");
        };
        let replay = stored::decode(payload).expect("a payload");
        assert_eq!(replay.size_hint().exact(), body.size_hint().exact());
        let (replay, first) = tokio::join!(replay.into_body().collect(), body.collect());
        assert_eq!(
            replay.expect("no failure").to_bytes(),
            first.expect("no failure").to_bytes()
        );
    }
}
