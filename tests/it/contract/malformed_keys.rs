//! What is no key: refused, and never ignored or run unprotected.

use super::case::{Case, case, post};

/// The value is refused, and `why` is in the detail.
fn refused(name: &'static str, source: &'static str, sent: impl Into<Vec<u8>>, why: &'static str) -> Case {
    case(
        name,
        source,
        [post("/plain")
            .key(sent)
            .problem(400, "key-invalid")
            .tells("detail", why)],
    )
}

/// The server refuses the message before anybody looks for a key.
fn no_message(name: &'static str, source: &'static str, line: &'static [u8], why: &'static str) -> Case {
    case(name, source, [post("/plain").raw(line).refused(400)]).only_http1(why)
}

const BARE: &str = "docs/http.md, Keys: printable ASCII";
const NO_CONTROLS: &str = "values without line breaks or NUL";

pub(super) fn cases() -> Vec<Case> {
    [strings(), bare(), lines(), messages()].into_iter().flatten().collect()
}

fn strings() -> Vec<Case> {
    vec![
        refused(
            "an empty value is no key",
            "docs/http.md, Keys: at least one character",
            "",
            "empty",
        ),
        refused("spaces are no key", "RFC 9110 section 5.5", "   ", "empty"),
        refused("a tab is no key", "RFC 9110 section 5.5", "\t", "empty"),
        refused(
            "an empty String is no key",
            "docs/http.md, Keys: at least one character",
            "\"\"",
            "empty",
        ),
        refused(
            "a String that is not closed is none",
            "RFC 9651 section 4.2.5 step 5",
            "\"k",
            "RFC 9651",
        ),
        refused(
            "a quotation mark alone is no String",
            "RFC 9651 section 4.2.5 step 5",
            "\"",
            "RFC 9651",
        ),
        refused(
            "what comes after a String is refused",
            "RFC 9651 section 4.2 step 7",
            "\"a\" b",
            "RFC 9651",
        ),
        refused(
            "only two characters can be escaped",
            "RFC 9651 section 4.2.5",
            br#""a\nb""#,
            "RFC 9651",
        ),
        refused(
            "an escape needs what it escapes",
            "RFC 9651 section 4.2.5",
            br#""a\"#,
            "RFC 9651",
        ),
        refused(
            "a tab inside a String is refused",
            "RFC 9651 section 3.3.3",
            "\"a\tb\"",
            "RFC 9651",
        ),
        refused(
            "UTF-8 inside a String is refused",
            "RFC 9651 section 3.3.3",
            "\"\u{e9}\"",
            "RFC 9651",
        ),
        refused(
            "a parameter is in lower case",
            "RFC 9651 section 3.1.2",
            "\"k\";A=1",
            "RFC 9651",
        ),
        refused(
            "a parameter has a name",
            "RFC 9651 section 4.2.3.2",
            "\"k\";",
            "RFC 9651",
        ),
        refused(
            "no space is before a semicolon",
            "RFC 9651 section 4.2.3.2",
            "\"k\" ;a",
            "RFC 9651",
        ),
        refused(
            "two Strings in one line are no String",
            "RFC 9651 section 4.2: an Item",
            "\"a\", \"a\"",
            "RFC 9651",
        ),
    ]
}

fn bare() -> Vec<Case> {
    vec![
        refused(
            "two bare values in one line are no key",
            "RFC 9110 section 5.3",
            "a,b",
            "comma",
        ),
        refused("a tab inside a bare value is refused", BARE, "a\tb", "printable"),
        refused("UTF-8 is refused", BARE, "caf\u{e9}", "printable"),
        refused("Latin-1 is refused", BARE, b"caf\xE9", "printable"),
        refused("a byte that no encoding has is refused", BARE, b"\xFF", "printable"),
        refused(
            "256 characters are too long",
            "Stripe and Telnyx: up to 255 characters",
            "k".repeat(256),
            "longer",
        ),
        refused(
            "256 characters in quotation marks are too long",
            "docs/http.md, Keys: 1 to 255 characters",
            format!("\"{}\"", "q".repeat(256)),
            "longer",
        ),
        refused(
            "8000 characters are too long and no harm",
            "draft section 5",
            "k".repeat(8000),
            "longer",
        ),
    ]
}

fn lines() -> Vec<Case> {
    let twice = |first: &'static str, second: &'static str| {
        post("/plain")
            .key(first)
            .key(second)
            .problem(400, "key-invalid")
            .tells("detail", "more than once")
    };
    vec![
        case(
            "no line is no key",
            "draft section 2.7: 400 where a key is required",
            [post("/plain")
                .problem(400, "key-missing")
                .tells("detail", "`idempotency-key`")],
        ),
        case("two equal lines are refused", "RFC 9110 section 5.3", [twice("k", "k")]),
        case(
            "two different lines are refused",
            "RFC 9110 section 5.3",
            [twice("a", "b")],
        ),
        case(
            "an empty line beside a key is refused",
            "RFC 9110 section 5.3",
            [twice("k", "")],
        ),
        case(
            "two Strings in two lines are refused",
            "RFC 9651 section 4.2",
            [twice("\"k\"", "\"k\"")],
        ),
        case(
            "a name with an underscore is another header",
            "RFC 9110 section 5.1",
            [post("/plain").line("idempotency_key", "k").problem(400, "key-missing")],
        ),
        case(
            "a key in the query is none",
            "draft section 2.1: a header field",
            [post("/plain?idempotency-key=k").problem(400, "key-missing")],
        ),
        case(
            "a key in the trailers is none",
            "RFC 9110 section 6.5.1",
            [post("/plain")
                .body("b")
                .chunked("idempotency-key: k\r\n")
                .problem(400, "key-missing")],
        )
        .only_http1("trailers that the tests' client cannot send"),
        case(
            "what is malformed claims nothing",
            "IDEM-10",
            [
                post("/plain").key("k,").problem(400, "key-invalid"),
                post("/plain").key("k").runs(),
            ],
        ),
        case(
            "a malformed key is not shown in what refuses it",
            "draft section 5: injection through a key",
            [post("/plain")
                .key("<script>,")
                .problem(400, "key-invalid")
                .hides("script")],
        ),
    ]
}

fn messages() -> Vec<Case> {
    vec![
        no_message(
            "a folded line is no message",
            "RFC 9112 section 5.2",
            b"idempotency-key: a\r\n b",
            "no lines to fold",
        ),
        no_message(
            "a space before the colon is no message",
            "RFC 9112 section 5.1",
            b"idempotency-key : k",
            "no colon",
        ),
        no_message(
            "a NUL is no message",
            "RFC 9110 section 5.5",
            b"idempotency-key: a\0b",
            NO_CONTROLS,
        ),
        no_message(
            "a carriage return alone is no message",
            "RFC 9110 section 5.5",
            b"idempotency-key: a\rb",
            NO_CONTROLS,
        ),
        no_message(
            "a DEL is no message",
            "RFC 9110 section 5.5: field-vchar",
            b"idempotency-key: a\x7Fb",
            NO_CONTROLS,
        ),
        no_message(
            "a name with a space is no message",
            "RFC 9110 section 5.1",
            b"idempotency key: k",
            "no colon",
        ),
    ]
}
