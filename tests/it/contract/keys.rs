//! What is a key, and which keys are one.

use super::case::{Case, case, post};

const STRINGS: &str = "RFC 9651 section 4.2.5";
const AS_SENT: &str = "docs/http.md, Keys: anything else is as it is";

/// Both are the same key.
fn one(name: &'static str, source: &'static str, sent: impl Into<Vec<u8>>, again: impl Into<Vec<u8>>) -> Case {
    case(
        name,
        source,
        [post("/plain").key(sent).runs(), post("/plain").key(again).replays()],
    )
}

/// They are different keys.
fn two(name: &'static str, source: &'static str, sent: &'static str, other: &'static str) -> Case {
    case(
        name,
        source,
        [post("/plain").key(sent).runs(), post("/plain").key(other).runs()],
    )
}

/// It is a key, which its String shows.
fn as_sent(name: &'static str, source: &'static str, sent: &str) -> Case {
    one(
        name,
        source,
        sent,
        format!("\"{}\"", sent.replace('\\', "\\\\").replace('"', "\\\"")),
    )
}

pub(super) fn cases() -> Vec<Case> {
    [strings(), bare(), settings(), natural()]
        .into_iter()
        .flatten()
        .collect()
}

fn strings() -> Vec<Case> {
    let printable: String = (' '..='~').filter(|char| !"\"\\".contains(*char)).collect();
    vec![
        one(
            "the draft's own example is a key, quoted or bare",
            "draft-ietf-httpapi-idempotency-key-header section 2.1; Stripe and GoCardless send it bare",
            "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
        ),
        one(
            "a quotation mark is escaped in a String",
            STRINGS,
            br#""a\"b""#,
            br#"a"b"#,
        ),
        one("a backslash is escaped in a String", STRINGS, br#""a\\b""#, br"a\b"),
        one("a comma in a String does not separate", STRINGS, "\"a,b\"", "\"a,b\" "),
        one(
            "a semicolon in a String begins no parameter",
            STRINGS,
            "\"a;b=1\"",
            "a;b=1",
        ),
        one(
            "every printable character but two stands for itself in a String",
            "RFC 9651 section 3.3.3",
            format!("\"{printable}\""),
            format!("\"{printable}\";p"),
        ),
        one(
            "a parameter of a String is ignored",
            "RFC 9651 section 3.1.2",
            "\"k\";v=1",
            "k",
        ),
        one(
            "parameters of every type are ignored",
            "RFC 9651 sections 3.1.2 and 3.3",
            "\"k\";a;b=?0;c=-1;d=1.5;e=tok;f=\"x\";g=:aGk=:;h=@1659578233;i=%\"x%22\"",
            "k",
        ),
        one(
            "spaces before a parameter are ignored",
            "RFC 9651 section 4.2.3.2",
            "\"k\";  a=1",
            "k",
        ),
        one(
            "255 escaped characters are 255 characters",
            "docs/http.md, Keys: 1 to 255 characters",
            format!("\"{}\"", "\\\"".repeat(255)),
            format!("\"{}\" ", "\\\"".repeat(255)),
        ),
        one(
            "255 characters in quotation marks are a key",
            "Stripe: up to 255 characters",
            format!("\"{}\"", "q".repeat(255)),
            "q".repeat(255),
        ),
        two("a space inside a String is a part of it", STRINGS, "\" k\"", "\"k\""),
    ]
}

fn bare() -> Vec<Case> {
    vec![
        as_sent(
            "a bare word is a key",
            "Stripe: Idempotency-Key: KG5LxwFBepaKHyUD",
            "KG5LxwFBepaKHyUD",
        ),
        as_sent(
            "every character of an opaque, unquoted key is itself",
            "Telnyx: ^[A-Za-z0-9_:-]{1,255}$",
            "aZ09_:-",
        ),
        as_sent("one character is a key", "Solidgate: 1 to 255 characters", "1"),
        as_sent(
            "255 characters are a key",
            "Telnyx: 1 to 255 characters",
            &"k".repeat(255),
        ),
        as_sent(
            "every printable character but a space and a comma is a key's",
            "Solidgate: printable ASCII",
            &('!'..='~')
                .filter(|char| *char != ',' && *char != '"')
                .collect::<String>(),
        ),
        as_sent("a space inside a bare value is a part of it", AS_SENT, "a b"),
        as_sent(
            "a quotation mark that does not begin a value is a part of it",
            AS_SENT,
            "k\"",
        ),
        as_sent("single quotation marks are a part of a key", AS_SENT, "'k'"),
        as_sent("a bare value has no parameters", AS_SENT, "k;v=1"),
        as_sent(
            "what would be bytes in a structured field is a key",
            AS_SENT,
            ":aGVsbG8=:",
        ),
        as_sent("what would be a boolean in a structured field is a key", AS_SENT, "?1"),
        as_sent(
            "what would be an inner list in a structured field is a key",
            AS_SENT,
            "(a b)",
        ),
        as_sent("JSON is a key", AS_SENT, "{\"a\":1}"),
        as_sent("a hash tag of a cluster is a key", "IDEM-9", "{a}"),
        as_sent("a pattern is a key", "IDEM-9", "*?[a-z]"),
        as_sent(
            "a path upwards is a key",
            "draft section 5: injection through a key",
            "../../etc/passwd",
        ),
        as_sent(
            "a statement is a key",
            "draft section 5: injection through a key",
            "'; DROP TABLE orders; --",
        ),
        two("a percent escape is not what it escapes", "IDEM-9", "%7Ba%7D", "{a}"),
        two("a percent sign is not its own escape", "IDEM-9", "%", "%25"),
        two("an escaped line break is text", "IDEM-9", "a%0d%0ab", "a%0Ab"),
        two("keys differ by case", "draft section 2.2: a unique value", "Key", "key"),
        two("a number is text", "draft section 2.1: a String", "1", "01"),
        one(
            "spaces around a value are not a part of it",
            "RFC 9110 section 5.5",
            "   k  ",
            "k",
        ),
        one(
            "tabs around a value are not a part of it",
            "RFC 9110 section 5.5",
            "\tk\t",
            "k",
        ),
        case(
            "the name of the header is in any case",
            "RFC 9110 section 5.1",
            [
                post("/plain").line("IDEMPOTENCY-KEY", "k").runs(),
                post("/plain").line("idempotency-key", "k").replays(),
            ],
        ),
        case(
            "no space is needed behind the colon",
            "RFC 9112 section 5",
            [
                post("/plain").raw(b"idempotency-key:k").runs(),
                post("/plain").key("k").replays(),
            ],
        )
        .only_http1("no colon"),
        case(
            "a line break in a value begins another header",
            "RFC 9112 section 2.1; draft section 5",
            [
                post("/plain").raw(b"idempotency-key: k\r\nx-injected: 1").runs(),
                post("/plain").key("k").replays(),
            ],
        )
        .only_http1("no lines"),
    ]
}

fn settings() -> Vec<Case> {
    const UUID: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    vec![
        case(
            "strictly a bare value is no key",
            "draft section 2.1: MUST be a String",
            [post("/strict")
                .key("k")
                .problem(400, "key-invalid")
                .tells("detail", "quotation marks")],
        ),
        case(
            "strictly a bare value claims nothing",
            "IDEM-10",
            [
                post("/strict").key("k").problem(400, "key-invalid"),
                post("/strict").key("\"k\"").runs(),
            ],
        ),
        case(
            "strictly a String with parameters is a key",
            "RFC 9651 section 4.2.3",
            [
                post("/strict").key("\"k\"").runs(),
                post("/strict").key("\"k\";a=1").replays(),
            ],
        ),
        case(
            "strictly other items are no keys",
            "draft section 2.1: MUST be a String",
            ["1", "1.5", "?1", ":aGk=:", "@1659578233", "%\"k\"", "(\"k\")"]
                .map(|item| post("/strict").key(item).problem(400, "key-invalid")),
        ),
        case(
            "strictly nothing is an empty key",
            "docs/http.md, Keys",
            [post("/strict")
                .key("")
                .problem(400, "key-invalid")
                .tells("detail", "empty")],
        ),
        case(
            "a key of another format is refused in the service's words",
            "draft section 5: a fixed, published key format",
            [post("/uuid")
                .key("k")
                .problem(400, "key-invalid")
                .tells("detail", "The key is no UUID.")],
        ),
        case(
            "a key of the format is one, quoted or bare",
            "draft section 2.2: UUID or similar",
            [
                post("/uuid").key(UUID).runs(),
                post("/uuid").key(format!("\"{UUID}\"")).replays(),
            ],
        ),
        case(
            "a format is asked after the syntax",
            "docs/http.md, Keys: after the rules above",
            [post("/uuid")
                .key("a,b")
                .problem(400, "key-invalid")
                .tells("detail", "comma")],
        ),
        case(
            "another header carries the key",
            "PayPal: PayPal-Request-Id",
            [
                post("/other-header").line("x-request-key", "k").runs(),
                post("/other-header").line("X-Request-Key", "\"k\"").replays(),
            ],
        ),
        case(
            "where another header carries the key the usual one does not",
            "docs/http.md, Keys: header = …",
            [post("/other-header")
                .key("k")
                .problem(400, "key-missing")
                .tells("detail", "`x-request-key`")],
        ),
        case(
            "a key that may be left out is left out",
            "docs/http.md, Keys: required = false",
            [post("/optional").runs(), post("/optional").runs()],
        ),
        case(
            "a key that may be left out is a key where it is there",
            "draft section 2.6",
            [post("/optional").key("k").runs(), post("/optional").key("k").replays()],
        ),
        case(
            "a key that may be left out may not be malformed",
            "docs/http.md, Keys; draft section 5: always validate",
            [post("/optional").key("").problem(400, "key-invalid")],
        ),
    ]
}

fn natural() -> Vec<Case> {
    let order = |body: String| post("/natural").body(body);
    vec![
        case(
            "a natural key needs no header",
            "docs/http.md, Keys: key = …",
            [
                order("order 1".into()).runs(),
                order("order 1".into()).replays(),
                order("order 2".into()).runs(),
            ],
        ),
        case(
            "beside a natural key the header is not looked at",
            "docs/http.md, Keys: no input of a client's",
            [
                order("o".into()).key("a").runs(),
                order("o".into()).key("b,c").replays(),
            ],
        ),
        case(
            "a natural key may be any text",
            "docs/http.md, Keys: may be any text",
            [
                order("Gr\u{fc}n\r\n\0\t\u{1f600}".into()).runs(),
                order("Gr\u{fc}n\r\n\0\t\u{1f600}".into()).replays(),
            ],
        ),
        case(
            "an empty natural key is none",
            "docs/http.md, Keys: refused where it is empty",
            [order(String::new()).problem(400, "key-invalid")],
        ),
        case(
            "a natural key of 1024 bytes is one",
            "docs/http.md, Keys: 1024 bytes",
            [order("n".repeat(1024)).runs(), order("n".repeat(1024)).replays()],
        ),
        case(
            "a natural key of 1025 bytes is none",
            "docs/http.md, Keys: 1024 bytes",
            [order("n".repeat(1025)).problem(400, "key-invalid")],
        ),
    ]
}
