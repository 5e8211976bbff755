//! Replays are the first answer again, line by line and byte by byte, or say that it is not there.

use super::case::{Case, Expect, Step, case, post};
use super::stage::{Content, Made, made};

const EVERY_LINE: &str = "IDEM-2; draft section 2.6: the result of the completed operation";
const NOT_THE_ANSWERS: &str = "RFC 9110 section 7.6.1; IDEM-2";

/// The answer comes back as it was.
fn same(name: &'static str, source: &'static str, made: Made) -> Case {
    let status = made.status();
    let script = [
        post("/plain").key("k").answers(status),
        Step::Drain,
        post("/plain").key("k").replays(),
    ];
    case(name, source, script).answering([made])
}

/// It comes back without these headers.
fn less(name: &'static str, source: &'static str, made: Made, names: &'static [&'static str]) -> Case {
    let replay = post("/plain").key("k").is(Expect::ReplaysWithout(names));
    case(name, source, [post("/plain").key("k").answers(200), replay]).answering([made])
}

/// It reaches the client, and a retry is told that it is not there any more.
fn not_stored(name: &'static str, path: &'static str, source: &'static str, first: Expect, made: Made) -> Case {
    let retry = || {
        post(path)
            .key("k")
            .problem(409, "response-not-stored")
            .lacks("retry-after")
    };
    case(
        name,
        source,
        [post(path).key("k").is(first), Step::Drain, retry(), retry()],
    )
    .answering([made])
}

pub(super) fn cases() -> Vec<Case> {
    [markers(), headers(), left_out(), bodies(), sizes()]
        .into_iter()
        .flatten()
        .collect()
}

fn markers() -> Vec<Case> {
    vec![
        case(
            "a replay is marked and the first answer is not",
            "Stripe and Increase: Idempotent-Replayed: true",
            [
                post("/plain")
                    .key("k")
                    .runs()
                    .lacks("idempotent-replayed")
                    .lacks("idempotency-stored"),
                post("/plain").key("k").replays().has("idempotent-replayed", ["true"]),
            ],
        ),
        case(
            "the tenth replay is as the first one",
            "IDEM-2",
            std::iter::once(post("/plain").key("k").runs())
                .chain((0..10).map(|_| post("/plain").key("k").replays().lacks("idempotency-stored"))),
        ),
        case(
            "a new key is a new request",
            "draft section 2.6: process normally",
            [
                post("/plain").key("a").runs().with_body("run 1"),
                post("/plain").key("b").runs().with_body("run 2"),
            ],
        ),
        case(
            "who is refused between does not change the answer",
            "IDEM-3",
            [
                post("/plain").key("k").runs(),
                post("/plain").key("k").body("other").reused(),
                post("/plain").key("k").replays(),
            ],
        ),
        case(
            "a marker of the handler's own is ours in a replay",
            "IDEM-2: the answer is marked",
            [
                post("/plain").key("k").answers(200),
                post("/plain")
                    .key("k")
                    .is(Expect::ReplaysWithout(&["idempotent-replayed"])),
            ],
        )
        .answering([made(200).line("idempotent-replayed", "false")]),
    ]
}

fn headers() -> Vec<Case> {
    let of = |name: &'static str, value: &'static str| made(200).line(name, value);
    vec![
        same(
            "a location is replayed",
            "RFC 9110 section 10.2.2",
            made(201).line("location", "/orders/1"),
        ),
        same(
            "a validator is replayed",
            "RFC 9110 section 8.8.3",
            of("etag", "W/\"1\""),
        ),
        same(
            "cookies are replayed line by line and in order",
            "RFC 6265 section 3: not to be folded",
            of("set-cookie", "a=1; Path=/")
                .line("x-between", "1")
                .line("set-cookie", "b=2; Secure"),
        ),
        same(
            "the same line twice is replayed twice",
            EVERY_LINE,
            of("x-a", "1").line("x-a", "1"),
        ),
        same("an empty value is replayed", EVERY_LINE, of("x-empty", "")),
        same(
            "a value that is not text is replayed",
            "RFC 9110 section 5.5: obs-text",
            made(200).line("x-latin", b"caf\xE9\x80\xFF"),
        ),
        same(
            "a tab inside a value is replayed",
            "RFC 9110 section 5.5",
            of("x-tab", "a\tb"),
        ),
        same(
            "a coding that the handler applied is replayed",
            "RFC 9110 section 8.4",
            of("content-encoding", "br")
                .line("vary", "accept-encoding")
                .whole(b"\x0b\x02\x80"),
        ),
        same(
            "a value of 10,000 characters is replayed",
            EVERY_LINE,
            made(200).line("x-long", "v".repeat(10_000)),
        ),
        same(
            "fifty headers are replayed",
            EVERY_LINE,
            (0..50).fold(made(200), |made, index| made.line("x-many", index.to_string())),
        ),
        same(
            "links are replayed",
            "RFC 8288 section 3",
            of("link", "</1>; rel=\"next\"").line("link", "</2>"),
        ),
        same(
            "what the handler says of caching is replayed",
            "RFC 9111 section 5.2",
            of("cache-control", "no-store"),
        ),
    ]
}

fn left_out() -> Vec<Case> {
    let of = |name: &'static str, value: &'static str| made(200).line(name, value);
    vec![
        case(
            "a date of the handler's own is not replayed",
            "RFC 9110 section 6.6.1; IDEM-2",
            [
                post("/plain")
                    .key("k")
                    .answers(200)
                    .has("date", ["Thu, 01 Jan 1970 00:00:00 GMT"]),
                post("/plain").key("k").replays().hides("1970"),
            ],
        )
        .answering([of("date", "Thu, 01 Jan 1970 00:00:00 GMT")]),
        less(
            "what a connection line names is not replayed",
            NOT_THE_ANSWERS,
            of("connection", "close, X-Hop").line("x-hop", "1"),
            &["x-hop"],
        ),
        less(
            "a trailer line is not replayed",
            "RFC 9110 section 6.6.2; IDEM-2",
            of("trailer", "x-sum"),
            &["trailer"],
        ),
        case(
            "headers that the service does not want stored are not replayed",
            "docs/http.md, Answers: with_unstored_headers",
            [
                post("/unstored").key("k").answers(200),
                post("/unstored")
                    .key("k")
                    .is(Expect::ReplaysWithout(&["set-cookie", "x-trace"])),
            ],
        )
        .answering([of("set-cookie", "a=1")
            .line("x-trace", "t")
            .line("set-cookie", "b=2")
            .line("x-kept", "1")]),
    ]
}

fn bodies() -> Vec<Case> {
    vec![
        same(
            "every byte is replayed",
            EVERY_LINE,
            made(200).whole((0..=255).collect::<Vec<u8>>()),
        ),
        same("an empty body is replayed", EVERY_LINE, made(200).whole("")),
        same(
            "a body that looks like the end of a chunked one is replayed",
            "RFC 9112 section 7.1",
            made(200).whole("5\r\nhello\r\n0\r\n\r\n"),
        ),
        same(
            "a streamed body is replayed whole",
            "IDEM-12",
            made(200).of(Content::Pieces(&["one", "", "two"])),
        ),
        same(
            "a stream without a piece is replayed",
            "IDEM-12",
            made(200).of(Content::Pieces(&[])),
        ),
        same(
            "a streamed body of announced length is replayed with it",
            "RFC 9110 section 8.6",
            made(200)
                .line("content-length", "6")
                .of(Content::Pieces(&["one", "two"])),
        ),
        not_stored(
            "a body that fails is cut short and not replayed as if it were whole",
            "/plain",
            "IDEM-12; RFC 9112 section 8",
            Expect::CutShort,
            made(200).of(Content::Failing),
        ),
        not_stored(
            "a streamed body shorter than its announced length is not replayed",
            "/plain",
            "IDEM-12; RFC 9112 section 6.3",
            Expect::CutShort,
            made(200)
                .line("content-length", "10")
                .of(Content::Pieces(&["one", "two"])),
        ),
        not_stored(
            "a body with trailers is not replayed without them",
            "/plain",
            "IDEM-12; RFC 9110 section 6.5",
            Expect::Runs(200),
            made(200).of(Content::WithTrailers),
        ),
    ]
}

fn sizes() -> Vec<Case> {
    const MIB: usize = 1024 * 1024;
    const SOURCE: &str = "docs/http.md, Answers: max_response (1 MiB)";
    const CHOSEN: &str = "IDEM-12; docs/http.md, Answers: max_response";
    let too_large = |name, path, source, made| not_stored(name, path, source, Expect::Runs(200), made);
    vec![
        same("a body of 1 MiB is replayed", SOURCE, made(200).whole(vec![b'm'; MIB])),
        too_large(
            "a body of 1 MiB and a byte is not stored",
            "/plain",
            SOURCE,
            made(200).whole(vec![b'm'; MIB + 1]),
        ),
        case(
            "a body of as much as its author allows is replayed",
            CHOSEN,
            [
                post("/sixteen").key("k").answers(200),
                post("/sixteen").key("k").replays(),
            ],
        )
        .answering([made(200).whole("sixteen bytes...")]),
        too_large(
            "a body of a byte more than its author allows is not stored",
            "/sixteen",
            CHOSEN,
            made(200).whole("seventeen bytes.."),
        ),
        case(
            "a stream of as much as its author allows is replayed",
            CHOSEN,
            [
                post("/sixteen").key("k").answers(200),
                post("/sixteen").key("k").replays(),
            ],
        )
        .answering([made(200).of(Content::Pieces(&["sixteen ", "bytes..."]))]),
        too_large(
            "a stream of a byte more than its author allows is not stored",
            "/sixteen",
            CHOSEN,
            made(200).of(Content::Pieces(&["seventeen ", "bytes.."])),
        ),
        case(
            "a stream that is there at once is measured as a whole",
            CHOSEN,
            [
                post("/sixteen").key("k").answers(200),
                post("/sixteen").key("k").replays(),
            ],
        )
        .answering([made(200).of(Content::AtOnce(&["sixteen ", "bytes..."]))]),
        too_large(
            "a stream that is there at once and too large is not stored",
            "/sixteen",
            CHOSEN,
            made(200).of(Content::AtOnce(&["seventeen ", "bytes.."])),
        ),
    ]
}
