//! Whose key it is: nothing crosses a scope.

use super::case::{Case, Expect, Request, case, post};

/// Each runs, and each is replayed to itself.
fn apart(name: &'static str, source: &'static str, ours: Request, theirs: Request) -> Case {
    let (ours, theirs) = (ours.key("k"), theirs.key("k"));
    let replays = [
        ours.clone().is(Expect::Replays(0)),
        theirs.clone().is(Expect::Replays(1)),
    ];
    case(name, source, [ours.runs(), theirs.runs()].into_iter().chain(replays))
}

pub(super) fn cases() -> Vec<Case> {
    [tenants(), others()].into_iter().flatten().collect()
}

fn tenants() -> Vec<Case> {
    let plain = |tenant| post("/plain").tenant(tenant);
    let pair = |path, a: &'static str, b: &'static str| post(path).line("x-a", a).line("x-b", b);
    vec![
        apart(
            "a key is its tenant's own",
            "draft section 5: composite lookup key; Adyen: company account",
            plain("acme"),
            plain("globex"),
        ),
        case(
            "a tenant is not told of another one's request",
            "IDEM-9",
            [
                plain("acme").key("k").body("ours").runs(),
                plain("globex")
                    .key("k")
                    .body("theirs")
                    .runs()
                    .lacks("idempotent-replayed"),
            ],
        ),
        apart(
            "a tenant is not one whose name begins alike",
            "IDEM-9",
            plain("acme"),
            plain("acme-eu"),
        ),
        apart("tenants differ by case", "IDEM-9", plain("acme"), plain("Acme")),
        apart(
            "a tenant that looks like a separator is a tenant",
            "IDEM-9",
            plain("a:b"),
            plain("a%3Ab"),
        ),
        apart(
            "a tenant that looks like a pattern is a tenant",
            "IDEM-9",
            plain("*"),
            plain("acme*"),
        ),
        apart(
            "a tenant that looks like a hash tag is a tenant",
            "IDEM-9",
            plain("{acme}"),
            plain("}{acme}"),
        ),
        apart(
            "the parts of a scope do not run into each other",
            "IDEM-9",
            pair("/in-pair", "a", "bc"),
            pair("/in-pair", "ab", "c"),
        ),
        apart(
            "a separator in a part of a scope is not one",
            "IDEM-9",
            pair("/in-pair", "a,b", "c"),
            pair("/in-pair", "a", "b,c"),
        ),
        apart(
            "a parenthesis in a part of a scope is not one",
            "IDEM-9",
            pair("/nested", "(a", "b)"),
            pair("/nested", "a", "b"),
        ),
        apart(
            "a user is not another one of the same tenant",
            "Telnyx: key and organisation",
            pair("/nested", "user 1", "-"),
            pair("/nested", "user 2", "-"),
        ),
    ]
}

fn others() -> Vec<Case> {
    let plain = |tenant| post("/plain").tenant(tenant);
    vec![
        case(
            "a global scope is everybody's",
            "docs/semantics.md: scope = global",
            [
                post("/global").key("one global key").tenant("acme").runs(),
                post("/global").key("one global key").tenant("globex").replays(),
            ],
        ),
        case(
            "scope and key do not run into each other",
            "IDEM-9: encoded injectively",
            [
                plain("a").key("b:c").runs(),
                plain("a:b").key("c").runs(),
                plain("a").key("c").runs(),
            ],
        ),
        case(
            "nobody is replayed nothing",
            "IDEM-10",
            [
                plain("acme").key("k").runs(),
                post("/plain").nobody().key("k").refused(401).with_body(""),
                plain("acme").key("k").replays(),
            ],
        ),
        case(
            "nobody claims nothing",
            "IDEM-10",
            [
                post("/plain").nobody().key("k").refused(401),
                plain("acme").key("k").runs(),
            ],
        ),
        case(
            "who is nobody is told so before a malformed key is",
            "IDEM-10: extractors first",
            [post("/plain").nobody().key("").refused(401)],
        ),
        case(
            "an empty scope is nobody's",
            "IDEM-9: an empty scope is a 500 and never shared",
            [post("/by-a").line("x-a", "").key("k").problem(500, "not-configured")],
        ),
        case(
            "a scope too long to be stored is the client's fault",
            "IDEM-9",
            [post("/by-a")
                .line("x-a", "s".repeat(1_025))
                .key("k")
                .problem(400, "key-invalid")],
        ),
    ]
}
