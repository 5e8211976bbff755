//! What counts, what does not, and the digests that are frozen.

use http::HeaderName;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    let lines = lines
        .iter()
        .map(|(name, value)| (name.clone(), value.parse().expect("a header value")));
    lines.collect()
}

fn hashed(method: &Method, target: &str, headers: &HeaderMap, frames: &[&[u8]]) -> Fingerprint {
    let mut hash = RequestHash::new(method, &target.parse().expect("a target"), headers);
    for frame in frames {
        hash.update(frame);
    }
    of_request(hash.finish())
}

fn of_post(target: &str, content_type: &str, body: &[u8]) -> Fingerprint {
    hashed(
        &Method::POST,
        target,
        &headers(&[(CONTENT_TYPE, content_type)]),
        &[body],
    )
}

fn hex(fingerprint: Fingerprint) -> String {
    let bytes = fingerprint.to_bytes();
    bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
fn scheme_1_is_frozen() {
    // printf, with each length as eight bytes, of POST, /o?a=1, application/json, gzip; then \0 and {}; through sha256sum
    let json = headers(&[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")]);
    assert_eq!(
        hex(hashed(&Method::POST, "/o?a=1", &json, &[b"{}"])),
        "0106278f42c7e36f9822ebc8aaaca11e84a5f0917c1bf09ec692c34fa290e01e40"
    );
    // The same of POST, /o, multipart/form-data, ""; then \1, the pieces "", "\r\n\r\nx" and "--\r\n", the SHA-256 of the
    // lengths 0, 5 and 4 as eight bytes each, and 3 as eight bytes
    let form = b"--b\r\n\r\nx\r\n--b--\r\n";
    assert_eq!(
        hex(of_post("/o", "multipart/form-data; boundary=b", form)),
        "01fbbf18595e811f96594af63836f3eba1f38ffcc41fa45eec26ede71464cfc4bf"
    );
}

fn path(target: &str) -> Uri {
    target.parse().expect("a target")
}

#[test]
fn scheme_2_is_frozen() {
    // printf, with each length as eight bytes, of POST, a=1; then \1 and, with its length, /o; then
    // {"a":[1,2.5,null,"\\u0001"],"b":true}; through sha256sum
    let value = serde_json::json!({ "b": true, "a": [1, 2.5, null, "\u{1}"] });
    assert_eq!(
        hex(of_value(&Method::POST, &path("/o?a=1"), ComparedPath::Whole, value)),
        "0279ba0695a015fe341986b10025eabe4dbe49916eb178ed7e8368b7bdb32c108c"
    );
}

#[test]
fn an_expression_adds_to_the_method_the_path_and_the_query() {
    let of =
        |method: Method, target: &str, value: u8| of_value(&method, &path(target), ComparedPath::Whole, value.into());
    let base = of(Method::POST, "/o/1?a=1", 1);
    assert!(!base.differs_from(&of(Method::POST, "/o/1?a=1", 1)));
    assert!(base.differs_from(&of(Method::PUT, "/o/1?a=1", 1)));
    assert!(base.differs_from(&of(Method::POST, "/o/2?a=1", 1)));
    assert!(base.differs_from(&of(Method::POST, "/o/1?a=2", 1)));
    assert!(base.differs_from(&of(Method::POST, "/o/1", 1)));
    assert!(base.differs_from(&of(Method::POST, "/o/1?a=1", 2)));
}

#[test]
fn every_part_of_the_request_counts() {
    let base = of_post("/o?a=1", "application/json", b"{}");
    let json = headers(&[(CONTENT_TYPE, "application/json")]);
    assert!(base.differs_from(&hashed(&Method::PUT, "/o?a=1", &json, &[b"{}"])));
    assert!(base.differs_from(&hashed(&Method::POST, "/o?a=1", &HeaderMap::new(), &[b"{}"])));
    assert!(base.differs_from(&of_post("/o?a=2", "application/json", b"{}")));
    assert!(base.differs_from(&of_post("/p?a=1", "application/json", b"{}")));
    assert!(base.differs_from(&of_post("/o?a=1", "text/plain", b"{}")));
    assert!(base.differs_from(&of_post("/o?a=1", "application/json", b"{ }")));
}

#[test]
fn how_a_content_type_is_written_does_not_count() {
    let base = of_post("/o", "application/json", b"{}");
    assert!(!base.differs_from(&of_post("/o", "Application/JSON; charset=utf-8", b"{}")));
}

#[test]
fn the_encoding_of_a_body_counts_and_how_it_is_written_does_not() {
    let of = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| (CONTENT_ENCODING, *line)).collect();
        hashed(&Method::POST, "/o", &headers(&lines), &[b"x"])
    };
    assert!(!of(&[]).differs_from(&of(&["identity"])));
    assert!(!of(&["GZIP"]).differs_from(&of(&["gzip"])));
    assert!(!of(&["gzip", "br"]).differs_from(&of(&["gzip , br"])));
    assert!(of(&[]).differs_from(&of(&["gzip"])));
    assert!(of(&["br"]).differs_from(&of(&["gzip"])));
    assert!(of(&["gzip, br"]).differs_from(&of(&["br, gzip"])));
}

#[test]
fn parts_do_not_run_into_each_other() {
    assert!(of_post("/o", "a", b"bc").differs_from(&of_post("/o", "ab", b"c")));
    assert!(of_post("/oa", "", b"").differs_from(&of_post("/o", "a", b"")));
}

#[test]
fn a_form_encoded_again_with_another_boundary_is_the_same_request() {
    let form = |boundary: &str, value: &str| {
        format!("--{boundary}\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--{boundary}--\r\n")
    };
    let first = of_post("/o", "multipart/form-data; boundary=XyZ", form("XyZ", "1").as_bytes());
    let again = of_post(
        "/o",
        "Multipart/form-data; charset=x; Boundary=\"q-9\"",
        form("q-9", "1").as_bytes(),
    );
    let other = of_post("/o", "multipart/form-data; boundary=XyZ", form("XyZ", "2").as_bytes());
    assert!(!first.differs_from(&again));
    assert!(first.differs_from(&other));
}

#[test]
fn what_looks_like_a_delimiter_inside_a_part_counts_as_content() {
    let form = |boundary: &str, content: &str| {
        let body = format!("--{boundary}\r\n\r\n{content}\r\n--{boundary}--\r\n");
        of_post(
            "/o",
            &format!("multipart/form-data; boundary={boundary}"),
            body.as_bytes(),
        )
    };
    assert!(form("X", "a--Xb").differs_from(&form("Y", "a--Yb")));
    assert!(!form("X", "a--Zb").differs_from(&form("Y", "a--Zb")));
}

#[test]
fn what_is_moved_from_one_part_of_a_form_to_the_next_counts() {
    let form = |one: &str, other: &str| {
        let body = format!("--b\r\n\r\n{one}\r\n--b\r\n\r\n{other}\r\n--b--\r\n");
        of_post("/o", "multipart/form-data; boundary=b", body.as_bytes())
    };
    assert!(form("ab", "c").differs_from(&form("a", "bc")));
}

#[test]
fn a_request_that_broke_off_is_no_whole_request() {
    let hash = || {
        let mut hash = RequestHash::new(&Method::POST, &path("/o"), &HeaderMap::new());
        hash.update(b"half");
        hash.finish()
    };
    assert!(of_incomplete_request(hash()).differs_from(&of_request(hash())));
    assert!(!of_incomplete_request(hash()).differs_from(&of_incomplete_request(hash())));
}

#[test]
fn the_order_of_members_does_not_count_and_that_of_elements_does() {
    let of = |text: &str| {
        of_value(
            &Method::POST,
            &path("/o"),
            ComparedPath::Whole,
            serde_json::from_str(text).expect("JSON"),
        )
    };
    let base = of(r#"{"a":[1,2],"b":{"c":1,"d":2}}"#);
    assert!(!base.differs_from(&of(r#"{"b":{"d":2,"c":1}, "a":[1,2]}"#)));
    assert!(base.differs_from(&of(r#"{"a":[2,1],"b":{"c":1,"d":2}}"#)));
    assert!(of("1").differs_from(&of("\"1\"")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn how_a_body_is_cut_into_frames_does_not_count(
        pieces in vec(prop::sample::select(vec!["--b", "\r\n", "\r", "-", "b", "x"]), 0..30),
        cuts in vec(0_usize..60, 0..8),
        content_type in prop::sample::select(vec!["multipart/form-data; boundary=b", "text/plain"]),
    ) {
        let body = pieces.concat().into_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let frames: Vec<_> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
        let headers = headers(&[(CONTENT_TYPE, content_type)]);
        let cut = hashed(&Method::POST, "/o", &headers, &frames);
        prop_assert_eq!(cut, of_post("/o", content_type, &body));
    }
}

fn key(key: &str) -> FingerprintKey {
    FingerprintKey::new(key.as_bytes())
}

#[test]
fn keyed_schemes_are_frozen() {
    // The scheme: printf of "idem fingerprint key id" and \1, through `openssl dgst -sha256 -hmac "a key of 20 letters."`; the
    // first byte, with 0x80 added. The digest: the 33 bytes of the fingerprint without a key, through the same.
    let json = headers(&[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")]);
    let request = hashed(&Method::POST, "/o?a=1", &json, &[b"{}"]);
    assert_eq!(
        hex(key("a key of 20 letters.").keyed(request)),
        "905d522bb64ce0a86f0a109f2b900d7eef90e29d6eafd2e29d4d06d33c189b295c"
    );
    let value = serde_json::json!({ "b": true, "a": [1, 2.5, null, "\u{1}"] });
    let value = of_value(&Method::POST, &path("/o?a=1"), ComparedPath::Whole, value);
    assert_eq!(
        hex(key("a key of 20 letters.").keyed(value)),
        "8d4481bfd877d05885d62b2c2fac8e528ec8d216c143af85755da647ed2c05747f"
    );
}

#[test]
fn a_key_keeps_what_differs_and_compares_nothing_made_without_it_or_with_another() {
    let one = of_post("/o", "text/plain", b"one");
    let two = of_post("/o", "text/plain", b"two");
    let (mine, other) = (key("mine"), key("other"));
    assert_eq!(mine.keyed(one), mine.keyed(one));
    assert!(mine.keyed(one).differs_from(&mine.keyed(two)));
    for elsewhere in [two, other.keyed(two)] {
        assert!(!mine.keyed(one).differs_from(&elsewhere), "{elsewhere:?}");
        assert!(!elsewhere.differs_from(&mine.keyed(one)), "{elsewhere:?}");
    }
    assert_eq!(mine.keyed(Fingerprint::NONE), Fingerprint::NONE);
}

/// One key in 128 has the number of another one.
#[test]
fn the_schemes_of_keys_are_spread_over_128_numbers() {
    let request = of_post("/o", "text/plain", b"one");
    let number = |of: u32| key(&of.to_string()).keyed(request).to_bytes()[0];
    let numbers: std::collections::BTreeSet<_> = (0..4_000).map(number).collect();
    assert_eq!(numbers, (0x80..=0xFF).collect());
}

#[test]
#[should_panic = "the fingerprint key is empty"]
fn an_empty_key_is_refused() {
    let _key = key("");
}

#[test]
fn debug_does_not_show_a_key() {
    assert_eq!(format!("{:?}", key("secret")), "FingerprintKey { .. }");
}
