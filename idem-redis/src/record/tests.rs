//! Golden bytes, and round trips.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn claim() -> Claim {
    Claim {
        token: Token::from_bytes(*b"0123456789abcdef"),
        attempt: 2,
        fingerprint: Fingerprint::new(1, [0xEE; 32]),
        lease: Duration::from_secs(30),
        ttl: Duration::from_hours(24),
        began_at: time_from_millis(1_764_000_000_123),
        owner: Owner::new("web:1"),
        has_steps: false,
    }
}

/// What of a claim its completion tells.
fn completed(claim: &Claim) -> Claim {
    Claim {
        lease: Duration::ZERO,
        ttl: Duration::ZERO,
        ..claim.clone()
    }
}

fn encode_claim(claim: &Claim) -> Vec<u8> {
    super::encode_claim(claim).to_vec()
}

fn encode_completion(claim: &Claim, completion: &Completion) -> Vec<u8> {
    let completed = Completed::new(claim, completion);
    let bytes = completed.to_redis_args().concat();
    assert_eq!(bytes.len(), completed.len());
    bytes
}

fn golden(state: u8, rest: &[u8]) -> Vec<u8> {
    let began_at = [0, 0, 1, 0x9A, 0xB6, 0x97, 0xE8, 0x7B];
    let head: &[&[u8]] = &[
        &[2, state],
        b"0123456789abcdef",
        &[0, 0, 0, 2, 1],
        &[0xEE; 32],
        &began_at,
        b"\x05web:1",
        rest,
    ];
    head.concat()
}

/// A claim that says another length of its owner than it has.
fn with_owner_len(len: u8) -> Vec<u8> {
    let mut value = encode_claim(&claim());
    value[63] = len;
    value
}

#[test]
fn a_claim_with_steps_and_a_parked_one_differ_in_their_state_alone() {
    let claim = claim();
    let with_steps = Claim {
        has_steps: true,
        ..claim.clone()
    };
    let plain = encode_claim(&claim);
    for (encoded, state, stored) in [
        (
            encode_claim_with_steps(&with_steps).to_vec(),
            4,
            Stored::Claimed(with_steps.clone()),
        ),
        (
            encode_parked(&with_steps).to_vec(),
            7,
            Stored::Parked(with_steps.clone()),
        ),
    ] {
        assert_eq!((encoded[0], encoded[1]), (LAYOUT, state));
        assert_eq!(encoded[2..], plain[2..]);
        assert_eq!(decode(&Bytes::copy_from_slice(&encoded)).expect("a record"), stored);
    }
    assert!(is_claim(&encode_claim_with_steps(&with_steps), &plain) && is_claim(&plain, &plain));
    assert!(!is_claim(&encode_parked(&with_steps), &plain));
    let other = Claim {
        token: Token::from_bytes([0; 16]),
        ..with_steps
    };
    assert!(!is_claim(&encode_claim_with_steps(&other), &plain));
}

#[test]
fn stored_values_are_frozen() {
    let day_and_half_a_minute = [0, 0, 0, 0, 5, 38, 92, 0, 0, 0, 0, 0, 0, 0, 117, 48];
    assert_eq!(encode_claim(&claim()), golden(1, &day_and_half_a_minute));
    let stored = Completion::Stored(Bytes::from_static(b"\0\xFFpayload"));
    assert_eq!(encode_completion(&claim(), &stored), golden(2, b"\0\xFFpayload"));
    assert_eq!(encode_completion(&claim(), &Completion::NotStored), golden(3, b""));
    assert_eq!(encode_completion(&claim(), &Completion::Unknown), golden(6, b""));
    let beside = Completed::beside(&claim(), 65_537).to_redis_args().concat();
    assert_eq!(beside, golden(5, &[0, 0, 0, 0, 0, 1, 0, 1]));
}

#[test]
fn every_value_comes_back() {
    assert_eq!(
        decode(&encode_claim(&claim()).into()).expect("a record"),
        Stored::Claimed(claim())
    );
    for completion in [
        Completion::Stored(Bytes::new()),
        Completion::Stored(Bytes::from_static(b"x")),
        Completion::NotStored,
        Completion::Unknown,
    ] {
        let expected = Stored::Completed {
            claim: completed(&claim()),
            completion: completion.clone(),
        };
        assert_eq!(
            decode(&encode_completion(&claim(), &completion).into()).expect("a record"),
            expected
        );
    }
    let beside = Completed::beside(&claim(), 7).to_redis_args().concat();
    let expected = Stored::CompletedBeside {
        claim: completed(&claim()),
        len: 7,
    };
    assert_eq!(decode(&beside.into()).expect("a record"), expected);
}

#[test]
fn whatever_is_not_a_record_is_unreadable() {
    let whole = encode_claim(&claim());
    let mut wrong = vec![
        b"".to_vec(),
        b"OK".to_vec(),
        golden(0, b""),
        golden(3, b"x"),
        golden(4, b""),
        golden(5, b""),
        golden(5, &[0; 9]),
        golden(6, b"x"),
        golden(7, b""),
        with_owner_len(6),
        with_owner_len(33),
        with_owner_len(255),
    ];
    wrong.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
    wrong.push([whole.as_slice(), b"x"].concat());
    // Of a layout that was never released, and of a later one.
    wrong.extend([0, 1, 3].map(|layout| [&[layout], &whole[1..]].concat()));
    let mut not_text = whole.clone();
    not_text[64] = 0xFF;
    wrong.push(not_text);
    for bytes in wrong {
        let error = decode(&bytes.clone().into()).expect_err("not a record");
        assert_eq!(error.kind(), BackendErrorKind::Unreadable, "{bytes:?}");
    }
}

prop_compose! {
    fn any_claim()(
        token: [u8; Token::LEN],
        attempt: u32,
        fingerprint: [u8; Fingerprint::LEN - 1],
        scheme: u8,
        ttl: u64,
        lease: u64,
        began_at: u64,
        owner in "[a-zé:0-9]{0,16}",
    ) -> Claim {
        Claim {
            token: Token::from_bytes(token),
            attempt,
            fingerprint: Fingerprint::new(scheme, fingerprint),
            lease: Duration::from_millis(lease),
            ttl: Duration::from_millis(ttl),
            began_at: time_from_millis(began_at),
            owner: Owner::new(&owner),
            has_steps: false,
        }
    }
}

fn any_completion() -> impl Strategy<Value = Completion> {
    let stored = vec(any::<u8>(), 0..200).prop_map(|payload| Completion::Stored(payload.into()));
    prop_oneof![stored, Just(Completion::NotStored), Just(Completion::Unknown)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_read_back(claim in any_claim(), completion in any_completion()) {
        let claimed = decode(&encode_claim(&claim).into()).expect("a record");
        prop_assert_eq!(claimed, Stored::Claimed(claim.clone()));
        let decoded = decode(&encode_completion(&claim, &completion).into()).expect("a record");
        prop_assert_eq!(decoded, Stored::Completed { claim: completed(&claim), completion });
    }

    #[test]
    fn the_beginning_of_a_record_tells_all_but_the_rest_of_its_payload(
        claim in any_claim(),
        completion in prop::option::of(any_completion()),
    ) {
        let value = Bytes::from(match &completion {
            None => encode_claim(&claim),
            Some(completion) => encode_completion(&claim, completion),
        });
        let beginning = value.slice(..value.len().min(BEGINNING_LEN));
        let mut expected = decode(&value).expect("a record");
        if let Stored::Completed { completion: Completion::Stored(payload), .. } = &mut expected {
            let header_len = value.len() - payload.len();
            payload.truncate(beginning.len() - header_len);
            prop_assert!(payload.len() >= HEAD_LEN.min(value.len() - header_len));
        }
        prop_assert_eq!(decode_beginning(&beginning, value.len()), Ok(expected));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes.into());
    }

    #[test]
    fn no_change_to_a_value_makes_decoding_panic(
        claim in any_claim(),
        completion in prop::option::of(any_completion()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        len: prop::sample::Index,
    ) {
        let mut value = completion.map_or_else(|| encode_claim(&claim), |known| encode_completion(&claim, &known));
        for (at, byte) in changes {
            *at.get_mut(&mut value) = byte;
        }
        value.truncate(len.index(value.len() + 1));
        let _ = decode(&value.into());
    }
}
