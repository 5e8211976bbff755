//! What a request goes through, part by part: `cargo xtask parts`.
//!
//! Most of it is private, and reached by the door that the fuzz targets have.

#![allow(clippy::expect_used, reason = "a measurement that cannot be taken is not reported")]

#[cfg(fuzzing)]
mod parts {
    use std::hint::black_box;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use std::time::SystemTime;

    use axum::http::HeaderValue;
    use bytes::Bytes;
    use divan::Bencher;
    use futures_util::FutureExt as _;
    use idem_core::{
        Backend, Claim, ClaimPolicy, Completion, Fingerprint, IdempotencyKey, MemoryBackend, Record, RecordKey, Scope,
        decide,
    };

    const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    const POLICY: ClaimPolicy = ClaimPolicy::new(Duration::from_hours(24));
    const HEAD: &[u8] = b"\x01\x01\x00\xC9\x00\x01\x0Ccontent-type\0\0\0\x10application/json";

    #[divan::bench]
    fn bare_key() -> Option<String> {
        idem_http::__fuzz::key(black_box(KEY.as_bytes()), false)
    }

    #[divan::bench]
    fn quoted_key(bencher: Bencher) {
        let line = format!("\"{KEY}\"");
        bencher.bench(|| idem_http::__fuzz::key(black_box(line.as_bytes()), false));
    }

    #[divan::bench]
    fn record_key() -> RecordKey {
        let key = IdempotencyKey::of(black_box(KEY));
        RecordKey::new(black_box("POST /orders"), &Scope::global(), &key).expect("a valid key")
    }

    #[divan::bench(args = [200, 16 * 1024, 256 * 1024])]
    fn fingerprint(bencher: Bencher, bytes: usize) {
        let content_type = HeaderValue::from_static("application/json");
        let body = vec![b'x'; bytes];
        bencher.bench(|| idem_http::__fuzz::fingerprint(&content_type, black_box(&body)));
    }

    /// Of a response as it is stored.
    #[divan::bench(args = [200, 16 * 1024, 256 * 1024])]
    fn payload_decoded_and_encoded(bencher: Bencher, bytes: usize) {
        let payload = [HEAD, &vec![b'x'; bytes]].concat();
        bencher.bench(|| idem_http::__fuzz::read_and_write(black_box(&payload)).expect("a payload"));
    }

    /// Of a record as it is in Redis.
    #[divan::bench(args = [200, 16 * 1024, 256 * 1024])]
    fn record_decoded_and_encoded(bencher: Bencher, bytes: usize) {
        let header: &[u8] = &[&[2, 2][..], &[7; 16], &[0, 0, 0, 1], &[7; 33], &[0; 8], &[0]].concat();
        let record = [header, HEAD, &vec![b'x'; bytes]].concat();
        bencher.bench(|| idem_redis::__fuzz::read_and_write(black_box(&record)).expect("a record"));
    }

    #[divan::bench]
    fn decision(bencher: Bencher) {
        let completion = Completion::Stored(Bytes::from_static(HEAD));
        let fingerprint = Fingerprint::new(1, [7; 32]);
        bencher
            .with_inputs(|| Record::Completed {
                fingerprint,
                completion: completion.clone(),
            })
            .bench_values(|record| decide(black_box(record), &fingerprint, &POLICY, SystemTime::now));
    }

    /// A first request's two operations, under a key of its own, from so many threads at a time.
    #[divan::bench(threads = [1, 2, 4, 8])]
    fn memory_claimed_and_completed(bencher: Bencher) {
        let backend = MemoryBackend::new();
        let next = AtomicU64::new(0);
        let completion = Completion::Stored(Bytes::from_static(HEAD));
        bencher.bench(|| {
            let key = IdempotencyKey::of(&next.fetch_add(1, Ordering::Relaxed));
            let key = RecordKey::new("POST /orders", &Scope::global(), &key).expect("a valid key");
            let claim = Claim::first(Fingerprint::NONE, &POLICY);
            let _acquired = backend.claim(&key, &claim).now_or_never().expect("no I/O");
            backend
                .complete(&key, &claim, &completion, claim.ttl)
                .now_or_never()
                .expect("no I/O")
        });
    }

    /// All of them after the same record.
    #[divan::bench(threads = [1, 2, 4, 8])]
    fn memory_replayed(bencher: Bencher) {
        let backend = MemoryBackend::new();
        let key = RecordKey::new("POST /orders", &Scope::global(), &IdempotencyKey::of(KEY)).expect("a valid key");
        let claim = Claim::first(Fingerprint::NONE, &POLICY);
        let _acquired = backend.claim(&key, &claim).now_or_never();
        let completion = Completion::Stored(Bytes::from_static(HEAD));
        let _completed = backend.complete(&key, &claim, &completion, claim.ttl).now_or_never();
        bencher.bench(|| {
            let duplicate = Claim::first(Fingerprint::NONE, &POLICY);
            backend.claim(&key, &duplicate).now_or_never().expect("no I/O")
        });
    }
}

fn main() {
    #[cfg(fuzzing)]
    divan::main();
    #[cfg(not(fuzzing))]
    eprintln!("run it by `cargo xtask parts`");
}
