//! What idem answers in place of the handler, as RFC 9457 has it.

use super::case::{Case, Expect, Step, case, post, request};
use super::stage::{Content, made};

const MEMBERS: &str = "RFC 9457 section 3.1; draft section 2.7";
const BLANK: &str = "RFC 9457 section 4.2.1";
const DOCUMENTED: &str = "RFC 9457 section 3.1.1; draft section 2.7: a link to documentation";

pub(super) fn cases() -> Vec<Case> {
    [members(), others(), documented(), shaped(), unavailable()]
        .into_iter()
        .flatten()
        .collect()
}

fn members() -> Vec<Case> {
    let plain = || post("/plain");
    vec![
        case(
            "a missing key is a whole problem",
            MEMBERS,
            [plain()
                .problem(400, "key-missing")
                .tells("title", "Idempotency key missing")
                .tells("status", "400")
                .tells("type", "about:blank")
                .has("content-type", ["application/problem+json"])
                .lacks("link")
                .lacks("retry-after")],
        ),
        case(
            "a malformed key is a whole problem",
            MEMBERS,
            [plain()
                .key("a,b")
                .problem(400, "key-invalid")
                .tells("title", "Idempotency key invalid")
                .tells("status", "400")
                .lacks("retry-after")],
        ),
        case(
            "a reused key is a whole problem",
            MEMBERS,
            [
                plain().key("k").runs(),
                plain()
                    .key("k")
                    .body("other")
                    .reused()
                    .tells("title", "Idempotency key reused")
                    .tells("detail", "use a new key")
                    .tells("status", "422"),
            ],
        ),
        case(
            "a request in flight is a whole problem",
            MEMBERS,
            [
                Step::Hold(plain().key("k")),
                plain()
                    .key("k")
                    .problem(409, "in-flight")
                    .tells("title", "Request in flight")
                    .tells("detail", "try again later")
                    .tells("status", "409"),
                Step::Open,
            ],
        ),
        case(
            "an answer that was not stored is a whole problem",
            MEMBERS,
            [
                post("/sixteen").key("k").answers(200),
                post("/sixteen")
                    .key("k")
                    .problem(409, "response-not-stored")
                    .tells("title", "Response not stored")
                    .tells("detail", "has run")
                    .lacks("retry-after"),
            ],
        )
        .answering([made(200).whole("this is more than is stored")]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case(
            "a problem is problem+json whatever is accepted",
            "RFC 9110 section 12.5.1; RFC 9457 section 3",
            [post("/plain")
                .line("accept", "text/html")
                .problem(400, "key-missing")
                .has("content-type", ["application/problem+json"])],
        ),
        case(
            "a problem in answer to HEAD has no body and says as much as it can",
            "RFC 9110 section 9.3.2",
            [request("HEAD", "/plain")
                .problem(400, "key-missing")
                .has("content-type", ["application/problem+json"])],
        ),
        case(
            "a problem is not kept",
            "IDEM-10",
            [
                post("/plain").key("a,").problem(400, "key-invalid"),
                post("/plain")
                    .key("a,")
                    .problem(400, "key-invalid")
                    .lacks("idempotent-replayed"),
            ],
        ),
        case(
            "a problem of the handler's own is its own",
            "draft issue 42: 422 already means something",
            [
                post("/plain")
                    .key("k")
                    .answers(422)
                    .tells("type", "https://example.com/out-of-stock")
                    .lacks("x-problem"),
                post("/plain").key("k").replays().lacks("x-problem"),
            ],
        )
        .answering([made(422)
            .line("content-type", "application/problem+json")
            .whole("{\"type\":\"https://example.com/out-of-stock\"}")]),
        case(
            "a missing layer is a whole problem and runs nothing",
            "docs/http.md, Problems: not-configured",
            [post("/unlayered")
                .key("k")
                .problem(500, "not-configured")
                .tells("title", "Idempotency not configured")
                .tells("status", "500")
                .tells("type", "about:blank")],
        ),
        case(
            "a missing layer is a problem before a missing key is",
            "docs/http.md, Problems: not-configured",
            [post("/unlayered").problem(500, "not-configured")],
        ),
        case(
            "a panic is no problem of ours and has no code",
            BLANK,
            [post("/plain")
                .key("k")
                .answers(500)
                .tells("type", "about:blank")
                .tells("title", "Internal Server Error")
                .tells("status", "500")
                .tells("code", "null")],
        )
        .answering([made(500).of(Content::Panic)]),
    ]
}

fn documented() -> Vec<Case> {
    vec![
        case(
            "a missing key points at its documentation",
            DOCUMENTED,
            [post("/documented")
                .problem(400, "key-missing")
                .tells("type", "https://example.com/keys#key-missing")
                .has("link", ["<https://example.com/keys#key-missing>; rel=\"describedby\""])],
        ),
        case(
            "a malformed key points at its documentation",
            DOCUMENTED,
            [post("/documented")
                .key("\"")
                .problem(400, "key-invalid")
                .tells("type", "https://example.com/keys#key-invalid")
                .has("link", ["<https://example.com/keys#key-invalid>; rel=\"describedby\""])],
        ),
        case(
            "a reused key points at its documentation",
            DOCUMENTED,
            [
                post("/documented").key("k").runs().lacks("link"),
                post("/documented")
                    .key("k")
                    .body("other")
                    .reused()
                    .tells("type", "https://example.com/keys#key-reused")
                    .has("link", ["<https://example.com/keys#key-reused>; rel=\"describedby\""]),
            ],
        ),
    ]
}

fn shaped() -> Vec<Case> {
    let json = ["application/json"];
    let link = ["<https://example.com/keys#key-missing>; rel=\"describedby\""];
    vec![
        case(
            "a problem of the service's own shape keeps its status and its link",
            "docs/http.md, A format of your own",
            [post("/shaped")
                .is(Expect::Shaped(400, "key-missing"))
                .with_body("{\"errors\":[{\"code\":\"key-missing\"}]}")
                .has("content-type", json)
                .has("link", link)],
        ),
        case(
            "a problem of the service's own shape keeps when to come again",
            "docs/http.md, A format of your own",
            [
                Step::Hold(post("/shaped").key("k")),
                post("/shaped")
                    .key("k")
                    .is(Expect::Shaped(409, "in-flight"))
                    .has("retry-after", ["1"]),
                Step::Open,
            ],
        ),
        case(
            "an answer of the handler's is not shaped",
            "docs/http.md, A format of your own",
            [
                post("/shaped").key("k").answers(422).with_body("run 1"),
                post("/shaped").key("k").replays().with_body("run 1"),
            ],
        )
        .answering([made(422)]),
    ]
}

fn unavailable() -> Vec<Case> {
    vec![
        case(
            "a backend that is down is a whole problem and runs nothing",
            "RFC 9110 section 15.6.4; IDEM-13",
            [post("/down")
                .key("k")
                .problem(503, "backend-unavailable")
                .tells("title", "Idempotency backend unavailable")
                .tells("status", "503")
                .has("retry-after", ["1"])
                .hides("127.0.0.1")],
        ),
        case(
            "a malformed key is one also where the backend is down",
            "IDEM-13; draft section 5: validate before processing",
            [post("/down").key("").problem(400, "key-invalid")],
        ),
        case(
            "where its author says so a handler runs unprotected and the answer says that",
            "IDEM-13: on_outage = run",
            [
                post("/down/unprotected")
                    .key("k")
                    .runs()
                    .has("idempotency-stored", ["false"]),
                post("/down/unprotected")
                    .key("k")
                    .runs()
                    .has("idempotency-stored", ["false"]),
            ],
        ),
        case(
            "a malformed key is not run unprotected",
            "IDEM-13; docs/http.md, Keys",
            [post("/down/unprotected").key("a,b").problem(400, "key-invalid")],
        ),
    ]
}
