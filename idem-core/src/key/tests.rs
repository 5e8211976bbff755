use super::*;

fn key(operation: &str, scope: &Scope, key: &str) -> String {
    RecordKey::new(operation, scope, &IdempotencyKey::of(key))
        .map_or_else(|error| format!("error: {error}"), |key| key.to_string())
}

#[test]
fn stored_keys_of_version_1_are_frozen() {
    let tenant = Scope::of("acme");
    assert_eq!(key("POST /orders", &tenant, "abc"), "POST%20/orders:acme:abc");
    assert_eq!(
        key("o", &Scope::global(), "é{}*%\r\n"),
        "o:@global:%C3%A9%7B%7D%2A%25%0D%0A"
    );
    let pair = Scope::tuple([tenant, Scope::tuple([Scope::of(&1), Scope::of("x,y")])]);
    assert_eq!(key("o", &pair, "../k"), "o:(acme,(1,x%2Cy)):../k");
}

#[test]
fn no_two_triples_share_an_encoding() {
    let values = [
        "a", "b", ":", "a:b", "%", "%3A", "%253A", ",", "(a", ")", "@global", "a,b", "(a,b)", "é",
    ];
    let mut scopes = vec![Scope::global()];
    for left in values {
        scopes.push(Scope::of(left));
        scopes.push(Scope::tuple([Scope::of(left)]));
        for right in values {
            scopes.push(Scope::tuple([Scope::of(left), Scope::of(right)]));
            scopes.push(Scope::tuple([Scope::of(left), Scope::tuple([Scope::of(right)])]));
        }
    }
    let mut seen = std::collections::HashSet::new();
    for operation in values {
        for scope in &scopes {
            for client in values {
                let encoded = key(operation, scope, client);
                assert!(seen.insert(encoded.clone()), "{encoded} stands for two records");
            }
        }
    }
}

#[test]
fn an_encoded_key_has_no_byte_that_a_store_or_a_terminal_reads_as_syntax() {
    let all: String = (0..=0x7F_u8).map(char::from).collect();
    let encoded = key(&all, &Scope::of(&all), &all);
    assert!(
        encoded
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\"'\\".contains(&byte)),
        "{encoded}"
    );
}

#[test]
fn empty_and_oversized_parts_are_refused_by_name() {
    let scope = Scope::of("acme");
    let long = "x".repeat(MAX_PART_LEN + 1);
    assert_eq!(key("", &scope, "k"), "error: the operation is empty");
    assert_eq!(
        key(&long, &scope, "k"),
        "error: the operation is longer than 1024 bytes"
    );
    assert_eq!(key("o", &scope, ""), "error: the idempotency key is empty");
    assert_eq!(
        key("o", &scope, &long),
        "error: the idempotency key is longer than 1024 bytes"
    );
    assert_eq!(key("o", &Scope::of(""), "k"), "error: the scope is empty");
    assert_eq!(
        key("o", &Scope::of(&long), "k"),
        "error: the scope is longer than 1024 bytes"
    );
    let nested = Scope::tuple([Scope::of("a"), Scope::of("")]);
    assert_eq!(key("o", &nested, "k"), "error: the scope is empty");
}

#[test]
fn a_failing_display_is_an_error_and_not_a_panic() {
    struct Broken;
    impl Display for Broken {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    let expected = "error: the scope's `Display` implementation returned an error";
    assert_eq!(key("o", &Scope::of(&Broken), "k"), expected);
}

#[test]
fn a_display_may_make_keys_itself_write_in_pieces_and_fail_half_way() {
    struct Nested;
    impl Display for Nested {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a b")?;
            let inner = RecordKey::of("inner", &Scope::global(), "k").map_err(|_| fmt::Error)?;
            f.write_str(inner.as_str())?;
            f.write_str("é/c")
        }
    }
    struct Broken;
    impl Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half of it")?;
            Err(fmt::Error)
        }
    }
    let shown = |key: Result<RecordKey, KeyError>| key.map(|key| key.to_string());
    let nested = "a%20binner%3A%40global%3Ak%C3%A9/c";
    assert_eq!(
        shown(RecordKey::of(&Nested, &Scope::global(), &Nested)),
        Ok(format!("{nested}:@global:{nested}"))
    );
    let broken = RecordKey::of("o", &Scope::global(), &Broken).expect_err("it failed");
    assert_eq!(broken.part(), Part::Key);
    assert_eq!(
        shown(RecordKey::of("o", &Scope::global(), "k")),
        Ok("o:@global:k".into())
    );
}

#[test]
fn of_two_bad_parts_the_scope_is_named_wherever_the_key_comes_from() {
    let (scope, key) = (Scope::of(""), IdempotencyKey::of(""));
    for bad in [RecordKey::new("o", &scope, &key), RecordKey::of("o", &scope, "")] {
        assert_eq!(bad.expect_err("both are empty").part(), Part::Scope);
    }
}
