//! What an operator sees and settles on Redis, beyond the contract: what a scan costs, where it goes on, and records that are broken.

use std::collections::BTreeSet;
use std::error::Error;

use bytes::Bytes;
use futures_util::future::join_all;
use idem_axum::{BackendErrorKind, RedisBackend, RedisClient};
use idem_core::inspect::{
    Cursor, HEAD_LEN, Health, Inspector, Listed, LiveClaim, Page, Phase, RecordState, RecordVersion, Selection,
    Settled, Settlement, StepChange, Unreadable,
};
use idem_core::steps::StepBackend as _;
use idem_core::{
    Acquisition, Backend, BackendError, Claim, ClaimPolicy, Completion, Fenced, Fingerprint, IdempotencyKey,
    LARGE_PAYLOAD, Record, RecordKey, Scope,
};
use idem_tests::{RedisCluster, RedisServer, in_time};
use redis::ProtocolVersion;
use redis::cluster::ClusterClient;

fn key(number: usize) -> RecordKey {
    RecordKey::new("POST /orders", &Scope::of("acme"), &IdempotencyKey::of(&number)).expect("a key")
}

fn claim() -> Claim {
    let minute = std::time::Duration::from_mins(1);
    Claim::first(Fingerprint::NONE, &ClaimPolicy::new(minute))
}

async fn connect(server: &RedisServer) -> RedisBackend {
    RedisBackend::connect(&server.url()).await.expect("the server answers")
}

fn inspector(backend: &RedisBackend) -> Inspector<'_> {
    backend.inspector().expect("Redis can be inspected")
}

/// Claims `count` keys.
async fn fill(backend: &RedisBackend, count: usize) -> Vec<(RecordKey, Claim)> {
    let claims = (0..count).map(|number| async move {
        let (key, claim) = (key(number), claim());
        let acquired = backend.claim(&key, &claim).await;
        assert_eq!(acquired.expect("the server answers"), Acquisition::Acquired);
        (key, claim)
    });
    join_all(claims).await
}

async fn page(backend: &RedisBackend, after: Option<&Cursor>, limit: usize) -> Result<Page, BackendError> {
    inspector(backend).scan(&Selection::all(), after, limit).await
}

/// All pages of a scan, the first one with this cursor.
async fn pages(backend: &RedisBackend, mut after: Option<Cursor>, limit: usize) -> Vec<Page> {
    let mut pages = Vec::new();
    loop {
        let page = page(backend, after.as_ref(), limit).await.expect("the servers answer");
        after.clone_from(&page.next);
        pages.push(page);
        if after.is_none() {
            return pages;
        }
    }
}

fn names(pages: &[Page]) -> BTreeSet<String> {
    let name = |listed: &Listed| match listed {
        Listed::Record(record) => record.key.to_string(),
        Listed::Unreadable(unreadable) => unreadable.name.clone(),
    };
    pages.iter().flat_map(|page| page.records.iter().map(name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_scan_costs_little_more_than_a_command_a_record_and_never_keys() {
    const RECORDS: usize = 3_000;
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    for (number, (key, claim)) in fill(&backend, RECORDS).await.iter().enumerate() {
        if number % 3 == 0 {
            let stored = Completion::Stored(Bytes::from_static(&[7; 300]));
            let completed = backend.complete(key, claim, &stored, claim.ttl).await;
            assert_eq!(completed.expect("the server answers"), Fenced::Applied);
        }
    }
    // Loads the script; once in the life of a server.
    page(&backend, None, 10).await.expect("the server answers");
    server.reset().await;
    let pages = pages(&backend, None, 500).await;
    assert_eq!(names(&pages).len(), RECORDS);
    let commands: u64 = pages.iter().map(|page| page.commands).sum();
    assert!(commands * 10 <= RECORDS as u64 * 11, "{commands} commands");
    let counted = server.commands().await;
    let calls = |name: &str| {
        counted
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, calls)| *calls)
    };
    assert_eq!(calls("scan"), pages.len() as u64);
    let sent = calls("scan") + calls("evalsha");
    assert!(sent <= commands && sent >= RECORDS as u64, "{counted:?}");
    assert_eq!(calls("keys"), 0, "{counted:?}");
    // A short list does not read a thousand records.
    server.reset().await;
    let first = page(&backend, None, 20).await.expect("the server answers");
    assert!((20..40).contains(&first.records.len()), "{}", first.records.len());
    assert!(first.commands < 50, "{}", first.commands);
    // One record is read without a scan.
    let one = Selection::all()
        .with_operation("POST /orders")
        .and_then(|one| one.with_scope(&Scope::of("acme")));
    let one = one
        .and_then(|one| one.with_key(&IdempotencyKey::of(&7)))
        .expect("a selection");
    let found = inspector(&backend)
        .scan(&one, None, 20)
        .await
        .expect("the server answers");
    assert_eq!(
        (names(std::slice::from_ref(&found)), found.commands),
        ([key(7).to_string()].into(), 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_large_answers_and_other_prefixes_are_not_listed_as_records() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let records = fill(&backend, 2).await;
    let (with_steps, claim) = &records[0];
    let recorded = backend
        .record_step(with_steps, claim, "a:{b}:c", &Bytes::from_static(b"1"))
        .await;
    assert_eq!(recorded.expect("the server answers"), Fenced::Applied);
    let (large, claim) = &records[1];
    let payload = vec![b'x'; LARGE_PAYLOAD + 1];
    let completed = backend
        .complete(large, claim, &Completion::Stored(payload.into()), claim.ttl)
        .await;
    assert_eq!(completed.expect("the server answers"), Fenced::Applied);
    let other = backend.clone().with_prefix("idem.other");
    fill(&other, 5).await;
    assert_eq!(
        server.records().await,
        9,
        "the hash and the payload have keys of their own"
    );
    let pages = pages(&backend, None, 100).await;
    assert_eq!(names(&pages), [key(0), key(1)].map(|key| key.to_string()).into());
    let found = pages
        .iter()
        .flat_map(|page| &page.records)
        .find_map(|listed| match listed {
            Listed::Record(record) if record.key == *large => Some(&record.state),
            _ => None,
        });
    let Some(RecordState::Stored { len, head }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(*len, LARGE_PAYLOAD as u64 + 1);
    assert_eq!(head[..], [b'x'; HEAD_LEN]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_record_is_listed_as_unreadable_and_says_why() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let records = fill(&backend, 2).await;
    let [(cut, _), (of_layout_1, claim)] = &records[..] else {
        panic!("{records:?}");
    };
    let mut connection = server.connection().await;
    for name in ["idem:{a:b:c d\x1b[31m}", "idem:{a:b:}"] {
        let set = redis::cmd("SET").arg(name).arg("x").to_owned();
        set.exec_async(&mut connection).await.expect("SET");
    }
    server.tell(&format!("SETRANGE idem:{{{of_layout_1}}} 0 \u{1}")).await;
    server.tell("RPUSH idem:{a:b:list} x").await;
    server.tell(&format!("SETRANGE idem:{{{cut}}} 63 \u{7f}")).await;
    let mut whys = Vec::new();
    for listed in pages(&backend, None, 100)
        .await
        .into_iter()
        .flat_map(|page| page.records)
    {
        let Listed::Unreadable(Unreadable { name, why, version }) = listed else {
            panic!("{listed:?}");
        };
        assert!(!name.contains('\x1b'), "{name}");
        // What another program has written is not idem's to remove.
        let is_record = name == cut.as_str() || name == of_layout_1.as_str();
        assert_eq!(version.is_some(), is_record, "{name}");
        whys.push((name, why));
    }
    assert_eq!(whys.len(), 5, "{whys:?}");
    for (name, expected) in [
        (cut.as_str(), "cut short"),
        ("a:b:list", "not a string"),
        (of_layout_1.as_str(), "another version"),
        ("idem:{a:b:c d\\x1b[31m}", "name"),
        ("idem:{a:b:}", "name"),
    ] {
        let why = whys.iter().find(|(known, _)| known == name);
        assert!(why.is_some_and(|(_, why)| why.contains(expected)), "{name}: {whys:?}");
    }
    for name in ["a:b:list", of_layout_1.as_str()] {
        let key = RecordKey::from_encoded(name).expect("a key");
        let error = inspector(&backend).inspect(&key).await.expect_err("it is not a record");
        assert_eq!(error.kind(), BackendErrorKind::Unreadable, "{name}");
        let version = RecordVersion::new(claim.token, Phase::Claimed);
        let settling = inspector(&backend)
            .settle(&key, version, &Settlement::Forget, LiveClaim::Force)
            .await;
        assert_eq!(
            settling.expect_err("it is not a record").kind(),
            BackendErrorKind::Unreadable,
            "{name}"
        );
    }
    assert_eq!(server.records().await, 5, "nothing was removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_never_expires_can_be_forgotten_by_force() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let (key, _) = fill(&backend, 1).await.remove(0);
    server.tell(&format!("PERSIST idem:{{{key}}}")).await;
    let listed = page(&backend, None, 10).await.expect("the server answers").records;
    let [Listed::Unreadable(Unreadable { name, why, version })] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(name, key.as_str());
    let version = version.expect("it is a record");
    let error = inspector(&backend)
        .inspect(&key)
        .await
        .expect_err("its lease is unknown");
    assert!(error.to_string().contains(why.as_str()), "{error}");
    let settle = |live| inspector(&backend).settle(&key, version, &Settlement::Forget, live);
    let error = settle(LiveClaim::Refuse).await.expect_err("it may be live");
    assert_eq!(error.kind(), BackendErrorKind::Unreadable);
    let rerun = Settlement::rerun(None);
    let other = inspector(&backend)
        .settle(&key, version, &rerun, LiveClaim::Force)
        .await;
    assert_eq!(
        other.expect_err("it is forgotten, or nothing").kind(),
        BackendErrorKind::Unreadable
    );
    // The owner is another one meanwhile.
    server.tell(&format!("SETRANGE idem:{{{key}}} 2 other")).await;
    let late = settle(LiveClaim::Force).await.expect("the server answers");
    assert_eq!((late, server.records().await), (Settled::Changed, 1));
    let listed = page(&backend, None, 10).await.expect("the server answers").records;
    let Some(Listed::Unreadable(Unreadable {
        version: Some(version), ..
    })) = listed.first()
    else {
        panic!("{listed:?}");
    };
    let settle = |live| inspector(&backend).settle(&key, *version, &Settlement::Forget, live);
    assert_eq!(
        settle(LiveClaim::Force).await.expect("the server answers"),
        Settled::Applied
    );
    assert_eq!(server.records().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_record_that_never_expires_is_shown_and_settled() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let (key, claim) = fill(&backend, 1).await.remove(0);
    let completed = backend.complete(&key, &claim, &Completion::Unknown, claim.ttl).await;
    assert_eq!(completed.expect("the server answers"), Fenced::Applied);
    server.tell(&format!("PERSIST idem:{{{key}}}")).await;
    let shown = inspector(&backend)
        .inspect(&key)
        .await
        .expect("the server answers")
        .expect("it is there");
    assert!(
        std::time::SystemTime::now()
            .checked_add(shown.summary.expires_in)
            .is_some()
    );
    let version = shown.version();
    let forgetting = inspector(&backend)
        .settle(&key, version, &Settlement::Forget, LiveClaim::Refuse)
        .await;
    assert_eq!(forgetting.expect("the server answers"), Settled::Applied);
    assert_eq!(server.records().await, 0);
}

/// It stays in the record, whatever its size. Clients of such a record get it like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_of_an_operator_is_replayed_and_the_one_before_it_is_removed() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let (key, claim) = fill(&backend, 1).await.remove(0);
    let old = Completion::Stored(vec![b'o'; LARGE_PAYLOAD + 1].into());
    let completed = backend.complete(&key, &claim, &old, claim.ttl).await;
    assert_eq!(completed.expect("the server answers"), Fenced::Applied);
    assert_eq!(server.records().await, 2);
    let shown = inspector(&backend)
        .inspect(&key)
        .await
        .expect("the server answers")
        .expect("it is there");
    let new = Completion::Stored(vec![b'n'; 3 * LARGE_PAYLOAD].into());
    let settlement = Settlement::complete(new.clone(), claim.ttl);
    let settling = inspector(&backend)
        .settle(&key, shown.version(), &settlement, LiveClaim::Refuse)
        .await;
    assert_eq!(settling.expect("the server answers"), Settled::Applied);
    assert_eq!(server.records().await, 1, "the payload beside the record is gone");
    let read = backend.read(&key).await.expect("the server answers");
    assert!(matches!(read, Some(Record::Completed { completion, .. }) if completion == new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_takes_settlements() {
    let server = RedisServer::start().await;
    let backend = connect(&server).await;
    let records = fill(&backend, 2).await;
    server.set("maxmemory-policy", "noeviction").await;
    server.set("maxmemory", "1").await;
    let complete = Settlement::complete(Completion::Unknown, std::time::Duration::from_mins(1));
    for ((key, claim), settlement) in records.iter().zip([complete, Settlement::Forget]) {
        let version = RecordVersion::new(claim.token, Phase::Claimed);
        let settling = inspector(&backend).settle(key, version, &settlement, LiveClaim::Force);
        assert_eq!(settling.await.expect("it is only full"), Settled::Applied);
    }
    assert_eq!(server.records().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_on_in_another_process_and_not_on_a_server_that_was_started_again() {
    let mut server = RedisServer::start().await;
    let backend = connect(&server).await;
    fill(&backend, 200).await;
    let first = page(&backend, None, 50).await.expect("the server answers");
    let text = first.next.clone().expect("there is more").as_str().to_owned();
    let other = connect(&server).await;
    let mut rest = pages(&other, Some(Cursor::new(text.clone())), 50).await;
    rest.push(first);
    assert_eq!(names(&rest).len(), 200);
    for text in ["", "7", &format!("{text}/0"), "18446744073709551616///0", "7//node/0"] {
        let error = page(&other, Some(&Cursor::new(text)), 50).await.expect_err("no cursor");
        assert_eq!(error.kind(), BackendErrorKind::Config, "{text}: {error:?}");
    }
    server.restart().await;
    let other = connect(&server).await;
    fill(&other, 200).await;
    let error = page(&other, Some(&Cursor::new(text)), 50)
        .await
        .expect_err("another run");
    assert!(error.to_string().contains("begin the scan again"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_of_a_cluster_goes_on_in_another_process_until_a_slot_is_moved() {
    in_time(async {
        let cluster = RedisCluster::start().await;
        let connect = || async {
            RedisBackend::connect(&cluster.url())
                .await
                .expect("the cluster answers")
        };
        let backend = connect().await;
        fill(&backend, 300).await;
        let mut found = Vec::new();
        let mut after = None;
        let mut servers = BTreeSet::new();
        loop {
            // Each page by another process.
            let next = page(&connect().await, after.as_ref(), 50)
                .await
                .expect("the cluster answers");
            after.clone_from(&next.next);
            servers.extend(
                after
                    .as_ref()
                    .and_then(|next| next.as_str().split('/').nth(2))
                    .map(str::to_owned),
            );
            found.push(next);
            if after.is_none() {
                break;
            }
        }
        assert_eq!((names(&found).len(), servers.len()), (300, 3));
        for info in cluster.infos().await {
            assert!(!info.contains("cmdstat_keys"));
        }
        // The application's own client finds the nodes by itself.
        let urls = cluster.urls().to_vec();
        let client = ClusterClient::builder(urls)
            .use_protocol(ProtocolVersion::RESP3)
            .build();
        let client = RedisClient::from(client.expect("a client"));
        let theirs = RedisBackend::connect_with(client).await.expect("the cluster answers");
        assert_eq!(names(&pages(&theirs, None, 50).await), names(&found));
        let first = page(&backend, None, 10).await.expect("the cluster answers");
        let moved = "idem:{moved:a:b}";
        let from = cluster.owner(moved).await;
        cluster.start_moving(moved, from, (from + 1) % 3).await;
        cluster.finish_moving(moved, from, (from + 1) % 3).await;
        for backend in [backend, theirs] {
            let error = page(&backend, first.next.as_ref(), 10)
                .await
                .expect_err("the slots have moved");
            assert!(error.to_string().contains("begin the scan again"), "{error}");
            assert_eq!(names(&pages(&backend, None, 100).await).len(), 300);
        }
    })
    .await;
}

/// The permissions in the documentation of `idem-redis`, with those of operators, are enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_of_operators_are_enough() {
    let server = RedisServer::start().await;
    let documented = |start: &str| {
        let mut lines = include_str!("../../idem-redis/src/lib.rs").lines();
        let found = lines.find_map(|line| line.strip_prefix("//! ").filter(|list| list.starts_with(start)));
        found.expect("the list is there")
    };
    let lists = ["~idem:*", "+hset", "+scan"].map(documented).join(" ");
    server.tell(&format!("ACL SETUSER app on >s3cret {lists}")).await;
    let url = server.url().replace("//", "//app:s3cret@");
    let backend = RedisBackend::connect(&url).await.expect("it may connect");
    let (key, claim) = fill(&backend, 2).await.remove(0);
    let recorded = backend
        .record_step(&key, &claim, "one", &Bytes::from_static(b"1"))
        .await;
    assert_eq!(recorded.expect("it may"), Fenced::Applied);
    assert_eq!(names(&pages(&backend, None, 100).await).len(), 2);
    let step = Bytes::from_static(b"2");
    let changes = [
        StepChange::Done {
            name: "two".into(),
            step,
        },
        StepChange::NotDone { name: "one".into() },
    ];
    let settlements = changes.map(|change| Settlement::rerun(Some(change)));
    let complete = Settlement::complete(Completion::Unknown, claim.ttl);
    for settlement in settlements.into_iter().chain([complete, Settlement::Forget]) {
        let shown = inspector(&backend)
            .inspect(&key)
            .await
            .expect("it may")
            .expect("it is there");
        let settling = inspector(&backend).settle(&key, shown.version(), &settlement, LiveClaim::Force);
        assert_eq!(settling.await.expect("it may"), Settled::Applied, "{settlement:?}");
    }
    let findings = inspector(&backend).diagnose().await.expect("it may");
    let permissions: Vec<_> = findings
        .iter()
        .filter(|finding| finding.check == "permissions")
        .collect();
    assert!(
        matches!(&permissions[..], [one] if one.health == Health::Good),
        "{permissions:?}"
    );
    let log: Vec<redis::Value> = redis::cmd("ACL")
        .arg("LOG")
        .query_async(&mut server.connection().await)
        .await
        .expect("ACL LOG");
    // How the client introduces itself, which no server has to hear.
    let is_denied = |entry: &String| !entry.contains("client|setinfo");
    let denied: Vec<_> = log.iter().map(|entry| format!("{entry:?}")).filter(is_denied).collect();
    assert!(denied.is_empty(), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_shows_the_password_of_the_url() {
    let mut server = RedisServer::start().await;
    server.tell("ACL SETUSER app on >s3cret ~* &* +@all -scan -info").await;
    let url = server.url().replace("//", "//app:s3cret@");
    let backend = RedisBackend::connect(&url).await.expect("it may connect");
    let mut shown = Vec::new();
    let mut show = |error: &dyn Error| {
        let mut next = Some(error);
        while let Some(error) = next {
            shown.push(format!("{error} {error:?}"));
            next = error.source();
        }
    };
    show(&page(&backend, None, 10).await.expect_err("it may not scan"));
    server.tell("ACL SETUSER app resetpass >other").await;
    let late = RedisBackend::lazy(&url).expect("a URL");
    show(&page(&late, None, 10).await.expect_err("another password"));
    show(&inspector(&late).diagnose().await.expect_err("another password"));
    server.kill();
    show(&page(&backend, None, 10).await.expect_err("it is gone"));
    show(&inspector(&backend).diagnose().await.expect_err("it is gone"));
    let shown = shown.join("\n") + &format!("{backend:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
}
