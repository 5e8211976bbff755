//! What makes two requests under one key the same request.

use super::case::{Case, Expect, Request, Step, case, post};
use super::stage::made;

const DRAFT: &str = "draft section 2.2: not with a different payload";
const COMPARED: &str = "docs/http.md, What is compared";

fn other(name: &'static str, source: &'static str, first: Request, other: Request) -> Case {
    let (again, other) = (first.clone().key("k"), other.key("k").reused());
    case(name, source, [first.key("k").runs(), other, again.replays()])
}

fn same(name: &'static str, source: &'static str, first: Request, again: Request) -> Case {
    case(name, source, [first.key("k").runs(), again.key("k").replays()])
}

pub(super) fn cases() -> Vec<Case> {
    [bodies(), targets(), media_types(), forms(), chosen(), answers()]
        .into_iter()
        .flatten()
        .collect()
}

fn bodies() -> Vec<Case> {
    let text = |body: Vec<u8>| post("/plain").body(body);
    let large = |last: u8| {
        let mut body = vec![b'x'; 200_000];
        body.push(last);
        post("/plain").body(body)
    };
    vec![
        other(
            "another body is another request",
            DRAFT,
            text(b"a".into()),
            text(b"b".into()),
        ),
        other("a body is not no body", DRAFT, text(b"{}".into()), text(Vec::new())),
        other(
            "white space in a body counts",
            COMPARED,
            text(b"{}".into()),
            text(b"{ }".into()),
        ),
        other(
            "a NUL at the end of a body counts",
            COMPARED,
            text(b"a".into()),
            text(b"a\0".into()),
        ),
        other(
            "the last byte of a body beyond 64 KiB counts",
            DRAFT,
            large(b'a'),
            large(b'b'),
        ),
        same(
            "a body beyond 64 KiB is the same again",
            "draft section 2.4: checksum of the payload",
            large(b'a'),
            large(b'a'),
        ),
        same(
            "a body in pieces is the same as at once",
            "RFC 9112 section 7.1: a transfer coding is the message's",
            text(vec![b'p'; 5_000]),
            text(vec![b'p'; 5_000]).chunked(""),
        ),
        other(
            "the order of members counts where bytes are compared",
            COMPARED,
            post("/json").json(r#"{"a":1,"b":2}"#),
            post("/json").json(r#"{"b":2,"a":1}"#),
        ),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        other(
            "another query is another request",
            COMPARED,
            post("/plain?a=1"),
            post("/plain?a=2"),
        ),
        other("a query is not no query", COMPARED, post("/plain"), post("/plain?")),
        other(
            "the order of a query counts",
            COMPARED,
            post("/plain?a=1&b=2"),
            post("/plain?b=2&a=1"),
        ),
        other(
            "how a query is escaped counts",
            "docs/http.md, What is compared: as the client sent it; RFC 3986 section 6.2.2.1",
            post("/plain?a=%2f"),
            post("/plain?a=%2F"),
        ),
        other(
            "another path of one route is another request",
            COMPARED,
            post("/items/1"),
            post("/items/2"),
        ),
        other(
            "how a path is escaped counts",
            COMPARED,
            post("/items/a"),
            post("/items/%61"),
        ),
    ]
}

fn media_types() -> Vec<Case> {
    let of = |media_type: &'static str| post("/plain").line("content-type", media_type).body("{}");
    let with = |name: &'static str, value: &'static str| of("a/b").line(name, value);
    vec![
        other(
            "another media type is another request",
            COMPARED,
            of("application/json"),
            of("text/plain"),
        ),
        other(
            "a media type is not none",
            COMPARED,
            of("text/plain"),
            post("/plain").body("{}"),
        ),
        same(
            "a media type is in any case",
            "RFC 9110 section 8.3.1",
            of("text/plain"),
            of("Text/PLAIN"),
        ),
        same(
            "a parameter of a media type does not count",
            COMPARED,
            of("text/plain"),
            of("text/plain; charset=utf-8"),
        ),
        same(
            "white space behind a media type does not count",
            "RFC 9110 section 8.3.1",
            of("text/plain ;a=b"),
            of("text/plain"),
        ),
        same(
            "who sends it does not count",
            COMPARED,
            with("user-agent", "one/1"),
            with("user-agent", "two/2"),
        ),
        same(
            "what is accepted does not count",
            COMPARED,
            with("accept", "text/html"),
            with("accept", "*/*"),
        ),
        same(
            "a trace of its own does not make a retry another request",
            "W3C Trace Context: traceparent is each request's own",
            with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"),
        ),
        same(
            "a proxy on the way does not make a retry another request",
            COMPARED,
            of("a/b"),
            with("x-forwarded-for", "192.0.2.1").line("forwarded", "for=192.0.2.1"),
        ),
    ]
}

fn forms() -> Vec<Case> {
    const BOUNDARY: &str = "RFC 7578 section 4.1; BlindPay ignores the key there";
    let part = |boundary: &str, name: &str, content: &str| {
        format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    };
    let form = |media_type: &'static str, boundary: &str, content: &str| {
        let body = part(boundary, "a", content) + &part(boundary, "b", "2") + &format!("--{boundary}--\r\n");
        post("/plain").line("content-type", media_type).body(body)
    };
    let x = |content| form("multipart/form-data; boundary=XyZ", "XyZ", content);
    let one = |name| {
        let body = part("XyZ", name, "1") + "--XyZ--\r\n";
        post("/plain")
            .line("content-type", "multipart/form-data; boundary=XyZ")
            .body(body)
    };
    let urlencoded = |body: &'static str| {
        post("/plain")
            .line("content-type", "application/x-www-form-urlencoded")
            .body(body)
    };
    vec![
        same(
            "a form encoded anew is the same request",
            BOUNDARY,
            x("1"),
            form("multipart/form-data; boundary=q-9", "q-9", "1"),
        ),
        same(
            "a boundary in quotation marks is one",
            "RFC 2046 section 5.1.1",
            x("1"),
            form("multipart/form-data; boundary=\"q 9\"", "q 9", "1"),
        ),
        same(
            "a boundary behind another parameter is one",
            "RFC 9110 section 5.6.6: parameters in any order and case",
            x("1"),
            form("Multipart/Form-Data; charset=utf-8; BOUNDARY=later", "later", "1"),
        ),
        other("another field of a form is another request", DRAFT, x("1"), x("3")),
        other("another name in a form is another request", DRAFT, one("a"), one("b")),
        other("a part more is another request", DRAFT, one("a"), x("1")),
        other(
            "what looks like a delimiter inside a line is content",
            "RFC 2046 section 5.1.1: at the beginning of a line",
            x("1--XyZ"),
            form("multipart/form-data; boundary=q-9", "q-9", "1--q-9"),
        ),
        same(
            "another multipart than a form is compared alike",
            "RFC 2046 section 5.1.3",
            form("multipart/mixed; boundary=m", "m", "1"),
            form("multipart/mixed; boundary=n", "n", "1"),
        ),
        other(
            "the order of fields counts",
            COMPARED,
            urlencoded("a=1&b=2"),
            urlencoded("b=2&a=1"),
        ),
    ]
}

fn chosen() -> Vec<Case> {
    let value = |json: &'static str| post("/by-value").json(json);
    let parts = |a: &'static str, b: &'static str| post("/by-parts").line("x-a", a).line("x-b", b);
    vec![
        same(
            "where nothing is compared every request is the same",
            "Modern Treasury: no mismatch; fingerprint = none",
            post("/uncompared").json("{}"),
            post("/uncompared?a=1").body("other"),
        ),
        same(
            "a value is compared without what it leaves out",
            "draft section 2.4: selected elements",
            value(r#"{"order": 1, "sent": "09:00"}"#),
            value(r#"{"order": 1, "sent": "09:01"}"#),
        ),
        other(
            "another value is another request",
            "draft section 2.4: selected elements",
            value(r#"{"order": 1}"#),
            value(r#"{"order": 2}"#),
        ),
        other(
            "a number is not its text",
            COMPARED,
            value(r#"{"order": 1}"#),
            value(r#"{"order": "1"}"#),
        ),
        same(
            "members of a value are in any order",
            COMPARED,
            value(r#"{"order": {"a": 1, "b": [1, 2]}}"#),
            value(r#"{"order": {"b": [1, 2], "a": 1}}"#),
        ),
        other(
            "elements of a value are not",
            COMPARED,
            value(r#"{"order": [1, 2]}"#),
            value(r#"{"order": [2, 1]}"#),
        ),
        other(
            "values do not run into each other",
            COMPARED,
            parts("ab", "c"),
            parts("a", "bc"),
        ),
        case(
            "a deploy that changes what is compared refuses no retry",
            COMPARED,
            [
                post("/shared").key("k").body("a").runs(),
                post("/deployed").key("k").body("a").replays(),
                post("/shared").key("k").body("b").reused(),
            ],
        ),
    ]
}

fn answers() -> Vec<Case> {
    let secret = || post("/plain").key("k").body("secret request");
    let other = || post("/plain").key("k").body("other");
    vec![
        case(
            "nothing of the first request or its answer is told",
            "draft section 5: data leak; IDEM-3",
            [
                secret().runs(),
                other().reused().hides("secret").lacks("x-secret").lacks("retry-after"),
            ],
        )
        .answering([made(201).line("x-secret", "secret").whole("secret answer")]),
        case(
            "another request is refused as such also while the first one runs",
            "IDEM-3: 422 beats 409",
            [
                Step::Hold(secret()),
                other().reused().lacks("retry-after"),
                Step::Open,
                secret().is(Expect::Replays(1)),
            ],
        ),
        case(
            "another request is not accepted while the first one runs",
            "IDEM-3, IDEM-4",
            [
                Step::Hold(post("/accepting").key("k")),
                post("/accepting").key("k").body("other").reused(),
                Step::Open,
            ],
        ),
        case(
            "another request does not wait while the first one runs",
            "IDEM-3, IDEM-4",
            [
                Step::Hold(post("/waiting").key("k")),
                post("/waiting").key("k").body("other").reused(),
                Step::Open,
            ],
        ),
        case(
            "a key that was released is free for another request",
            "IDEM-11",
            [secret().answers(503), other().runs(), secret().reused()],
        )
        .answering([made(503), made(201)]),
        case(
            "another request is refused as such where the answer was not stored",
            "IDEM-3, IDEM-12",
            [
                post("/sixteen").key("k").answers(200),
                post("/sixteen").key("k").body("other").reused(),
            ],
        )
        .answering([made(200).whole("more than sixteen bytes")]),
    ]
}
