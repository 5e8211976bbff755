//! Methods are a part of the operation, and none is left out for being safe.

use super::case::{Case, Expect, Request, Step, case, post, request};
use super::stage::{Content, made};

fn run_once(name: &'static str, source: &'static str, method: &'static str) -> Case {
    let call = || request(method, "/plain").key("k");
    case(name, source, [call().runs(), call().replays()])
}

fn needs_a_key(name: &'static str, source: &'static str, method: &'static str) -> Case {
    case(name, source, [request(method, "/plain").problem(400, "key-missing")])
}

pub(super) fn cases() -> Vec<Case> {
    [every(), heads(), operations()].into_iter().flatten().collect()
}

fn every() -> Vec<Case> {
    vec![
        run_once("PUT is run once", "RFC 9110 section 9.3.4", "PUT"),
        run_once("PATCH is run once", "RFC 5789 section 2; draft section 1", "PATCH"),
        run_once("DELETE is run once", "RFC 9110 section 9.3.5", "DELETE"),
        run_once(
            "GET is run once",
            "RFC 9110 section 9.2.1; docs/http.md, Methods",
            "GET",
        ),
        run_once(
            "OPTIONS is run once",
            "RFC 9110 section 9.3.7; docs/http.md, Methods",
            "OPTIONS",
        ),
        run_once(
            "a method of the service's own is run once",
            "RFC 9110 section 16.1",
            "SETTLE",
        ),
        needs_a_key("GET needs a key", "docs/http.md, Methods", "GET"),
        needs_a_key("HEAD needs a key", "docs/http.md, Methods", "HEAD"),
        needs_a_key("DELETE needs a key", "docs/http.md, Methods", "DELETE"),
        case(
            "a method that the route does not have claims nothing",
            "RFC 9110 section 15.5.6",
            [
                request("PUT", "/json")
                    .key("k")
                    .json("{}")
                    .refused(405)
                    .has("allow", ["POST"]),
                post("/json").key("k").json("{}").runs(),
            ],
        ),
        case(
            "a path that no route has is nobody's",
            "RFC 9110 section 15.5.5",
            [post("/nowhere").key("k").refused(404).lacks("x-problem")],
        ),
    ]
}

fn heads() -> Vec<Case> {
    let got = |method: &'static str| request(method, "/got").key("k");
    let uncompared = |method: &'static str| request(method, "/uncompared").key("k");
    vec![
        case(
            "HEAD is run by itself and replayed without a body",
            "RFC 9110 section 9.3.2; docs/http.md, Methods",
            [
                got("GET").runs().with_body("run 1"),
                got("HEAD").runs().with_body("").has("content-length", ["5"]),
                got("HEAD").is(Expect::Replays(1)).has("content-length", ["5"]),
                got("GET").is(Expect::Replays(0)),
            ],
        ),
        case(
            "HEAD may tell of a body that it does not have",
            "RFC 9110 section 8.6",
            [
                got("HEAD").answers(200).has("content-length", ["1234"]),
                got("HEAD").replays(),
            ],
        )
        .answering([made(200).line("content-length", "1234").whole("")]),
        case(
            "a streamed answer to HEAD is kept though nobody reads it",
            "RFC 9110 section 9.3.2; IDEM-12",
            [
                got("HEAD").answers(200).with_body(""),
                Step::Drain,
                got("HEAD").replays(),
            ],
        )
        .answering([made(200).of(Content::Pieces(&["one", "two"]))]),
        case(
            "where nothing is compared HEAD gets what GET has got without its body",
            "docs/http.md, Methods",
            [
                uncompared("GET").runs().with_body("run 1"),
                uncompared("HEAD")
                    .is(Expect::ReplaysUnseen)
                    .with_body("")
                    .has("content-length", ["5"]),
            ],
        ),
        case(
            "where nothing is compared GET gets the body that HEAD was not sent",
            "docs/http.md, Methods",
            [
                uncompared("HEAD").runs().with_body(""),
                uncompared("GET").is(Expect::ReplaysUnseen).with_body("run 1"),
            ],
        ),
        case(
            "HEAD under the key of GET is another request where their name is one",
            "docs/http.md, Methods",
            [
                request("GET", "/shared").key("k").runs(),
                request("HEAD", "/shared").key("k").reused(),
            ],
        ),
    ]
}

fn operations() -> Vec<Case> {
    let apart = |name, source, first: Request, second: Request| {
        let again = [
            first.clone().is(Expect::Replays(0)),
            second.clone().is(Expect::Replays(1)),
        ];
        case(name, source, [first.runs(), second.runs()].into_iter().chain(again))
    };
    vec![
        apart(
            "two methods of one route are two operations",
            "ePay: key, endpoint and verb; Telnyx: method and path",
            request("PUT", "/plain").key("k"),
            request("PATCH", "/plain").key("k"),
        ),
        case(
            "two methods of one name are one operation",
            "docs/http.md, Methods: a name makes them one",
            [
                request("PUT", "/shared").key("k").runs(),
                request("PATCH", "/shared").key("k").reused(),
            ],
        ),
        apart(
            "two routes are two operations",
            "Telnyx: key, organisation, method and path",
            post("/plain").key("k"),
            post("/optional").key("k"),
        ),
        apart(
            "a nested route is an operation of its own",
            "docs/http.md, Methods: the matched route",
            post("/plain").key("k"),
            post("/v2/plain").key("k"),
        ),
        case(
            "two routes of one name are one operation",
            "Modern Treasury: route-independent; name = …",
            [
                post("/shared").key("k").runs(),
                post("/shared/again").key("k").reused(),
                post("/shared").key("k").replays(),
            ],
        ),
    ]
}
