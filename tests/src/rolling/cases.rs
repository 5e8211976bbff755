//! The cases about records with steps, and the list of all cases.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::sleep;

use super::handover;
use super::scene::{Scene, Server, begin, pay, pay_for};
use crate::{Answer, Process, until};

/// The lease of the service's routes.
const LEASE: Duration = Duration::from_secs(2);

/// How long the route `/brief` keeps a record.
const BRIEF: Duration = Duration::from_secs(2);

/// An old process refuses on each of them, whatever it does about requests in flight, and about outages.
const ROUTES: [&str; 3] = ["/refusing", "/waiting", "/unprotected"];

/// A route that has no option.
pub(super) const ROUTE: &str = "/refusing";

/// What an attempt does that nothing was recorded for.
const WHOLE: [&str; 3] = ["begin", "hold", "capture"];

/// What an attempt does after the hold of an earlier one.
const REST: [&str; 2] = ["begin", "capture"];

/// Larger than what Redis keeps within the record.
const LARGE: usize = 300_000;

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Case {
    Migrations,
    Parked,
    Killed,
    Completed,
    BegunByOld,
    BegunByNew,
    LateOwner,
    WaitsForCompletion,
    WaitsForParking,
    Expired,
    OutlivesTtl,
    StartsLate,
}

impl Case {
    pub(super) const ALL: [Self; 12] = [
        Self::Migrations,
        Self::Parked,
        Self::Killed,
        Self::Completed,
        Self::BegunByOld,
        Self::BegunByNew,
        Self::LateOwner,
        Self::WaitsForCompletion,
        Self::WaitsForParking,
        Self::Expired,
        Self::OutlivesTtl,
        Self::StartsLate,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Migrations => "old goes on claiming and completing while new migrates, and after it",
            Self::Parked => "parked by new: old refuses, changes nothing; new goes on",
            Self::Killed => "new killed after a step: old refuses, changes nothing; new goes on",
            Self::Completed => "completed by one with or without steps: the other replays every byte",
            Self::BegunByOld => "old killed while it runs: new takes over",
            Self::BegunByNew => "new killed before its first step: old takes over",
            Self::LateOwner => "old frozen, taken over by new, wakes: it records nothing",
            Self::WaitsForCompletion => "waits at old; new records a step, completes: replayed or refused",
            Self::WaitsForParking => "waits at old; new records a step, parks: refused",
            Self::Expired => "parked, and its ttl is over: no step is left; old begins anew",
            Self::OutlivesTtl => "new runs for longer than the ttl: old refuses",
            Self::StartsLate => "old started after the migrations: refuses in SQL, serves on Redis",
        }
    }

    pub(super) async fn play(self, scene: &Scene<'_>) {
        match self {
            Self::Migrations => handover::migrations(scene).await,
            Self::Parked => parked(scene).await,
            Self::Killed => killed(scene).await,
            Self::Completed => completed(scene).await,
            Self::BegunByOld => handover::begun_by_old(scene).await,
            Self::BegunByNew => handover::begun_by_new(scene).await,
            Self::LateOwner => handover::late_owner(scene).await,
            Self::WaitsForCompletion => waits_for_completion(scene).await,
            Self::WaitsForParking => waits_for_parking(scene).await,
            Self::Expired => expired(scene).await,
            Self::OutlivesTtl => outlives_ttl(scene).await,
            Self::StartsLate => starts_late(scene).await,
        }
    }
}

/// What a version does in an attempt.
pub(super) fn by(version: &str, acts: &[&str]) -> Vec<String> {
    acts.iter().map(|act| format!("{version} {act}")).collect()
}

/// What it does if nothing was recorded.
pub(super) fn all_by(version: &str) -> Vec<String> {
    by(version, &WHOLE)
}

/// The new version's acts, of an attempt that stopped at the capture and one that has gone on after the hold.
fn gone_on() -> Vec<String> {
    [by("new", &WHOLE), by("new", &REST)].concat()
}

/// Waits until the lease of a dead or frozen process has lapsed: it cannot have been renewed since this was called.
pub(super) async fn lapse() {
    sleep(LEASE + Duration::from_millis(100)).await;
}

pub(super) fn assert_paid(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(!answer.says_not_stored() && !answer.is_replay(), "{answer:?}");
}

/// Sends a payment to an old process that must not make it, and checks that nothing is called.
async fn assert_refused(scene: &Scene<'_>, old: &Process, route: &str, reference: &str) {
    let acts = scene.provider.acts(reference);
    let refused = pay(old, route, reference).send().await;
    assert_eq!(
        scene.provider.acts(reference),
        acts,
        "{route}: old has run something, {refused:?}"
    );
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{route}: {refused:?}");
    assert_eq!(refused.problem(), "backend-unavailable", "{route}: {refused:?}");
}

/// The same, and that nothing that is stored changes.
async fn assert_refused_unchanged(scene: &Scene<'_>, old: &Process, route: &str, reference: &str) {
    let stored = scene.stored().await;
    assert_refused(scene, old, route, reference).await;
    assert_eq!(scene.stored().await, stored, "{route}: old has changed something");
}

/// Each of the routes, and what is paid there.
fn payments() -> [(&'static str, &'static str); 3] {
    ROUTES.map(|route| (route, route.trim_start_matches('/')))
}

async fn parked(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    for (route, reference) in payments() {
        scene.provider.fail_next("capture", reference);
        let failed = pay(&new, route, reference).send().await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
        assert_refused_unchanged(scene, &old, route, reference).await;
        let paid = pay(&new, route, reference).send().await;
        assert_paid(&paid);
        assert_eq!(scene.provider.acts(reference), gone_on(), "{route}");
        pay(&old, route, reference).send().await.assert_replays(&paid);
    }
}

async fn killed(scene: &Scene<'_>) {
    let (old, mut new) = scene.deploy();
    let mut held = Vec::new();
    for (route, reference) in payments() {
        held.push(scene.provider.hold_next("capture", reference));
        begin(pay(&new, route, reference));
    }
    for capture in held {
        capture.reached().await;
    }
    for (route, reference) in payments() {
        assert_refused(scene, &old, route, reference).await;
    }
    new.kill();
    lapse().await;
    for (route, reference) in payments() {
        assert_refused_unchanged(scene, &old, route, reference).await;
    }
    let new = scene.start_new();
    for (route, reference) in payments() {
        let paid = pay(&new, route, reference).send().await;
        assert_paid(&paid);
        assert_eq!(scene.provider.acts(reference), gone_on(), "{route}");
        pay(&old, route, reference).send().await.assert_replays(&paid);
    }
}

async fn completed(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    for (by, first, other) in [("new", &new, &old), ("old", &old, &new)] {
        for len in [0, LARGE] {
            let reference = format!("{by}-{len}");
            let paid = pay_for(first, ROUTE, &reference, len).send().await;
            assert_paid(&paid);
            assert!(paid.body.len() >= len, "the answer has its length");
            for process in [other, first] {
                pay_for(process, ROUTE, &reference, len)
                    .send()
                    .await
                    .assert_replays(&paid);
            }
            let another = pay_for(other, ROUTE, &reference, len + 1).send().await;
            assert_eq!(another.problem(), "key-reused", "{another:?}");
            assert_eq!(scene.provider.acts(&reference), all_by(by));
        }
    }
}

/// The request waits at the old process for a claim that it can read, and the claim gets its first step meanwhile.
async fn waits_for_completion(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    let reference = "waited-for";
    let start = scene.provider.hold_next("begin", reference);
    let capture = scene.provider.hold_next("capture", reference);
    let first = begin(pay(&new, "/waiting", reference));
    start.reached().await;
    let waiter = begin(pay(&old, "/waiting", reference));
    scene.wait_for_a_waiter().await;
    start.open();
    capture.reached().await;
    capture.open();
    let paid = first.await.expect("no panic").expect("it lives");
    assert_paid(&paid);
    let answer = waiter.await.expect("no panic").expect("it lives");
    if answer.status == StatusCode::CREATED {
        answer.assert_replays(&paid);
    } else {
        assert_eq!(answer.problem(), "backend-unavailable", "{answer:?}");
    }
    assert_eq!(scene.provider.acts(reference), all_by("new"));
    pay(&old, "/waiting", reference).send().await.assert_replays(&paid);
}

async fn waits_for_parking(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    let reference = "waited-for";
    let start = scene.provider.hold_next("begin", reference);
    let first = begin(pay(&new, "/waiting", reference));
    start.reached().await;
    let waiter = begin(pay(&old, "/waiting", reference));
    scene.wait_for_a_waiter().await;
    scene.provider.fail_next("capture", reference);
    start.open();
    let failed = first.await.expect("no panic").expect("it lives");
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
    let answer = waiter.await.expect("no panic").expect("it lives");
    assert_eq!(answer.problem(), "backend-unavailable", "{answer:?}");
    assert_eq!(scene.provider.acts(reference), all_by("new"));
    assert_paid(&pay(&new, "/waiting", reference).send().await);
    assert_eq!(scene.provider.acts(reference), gone_on());
}

async fn expired(scene: &Scene<'_>) {
    let (old, mut new) = scene.deploy();
    // An old process that has written deletes what has expired, in SQL.
    assert_paid(&pay(&old, "/brief", "before").send().await);
    let reference = "brief";
    scene.provider.fail_next("capture", reference);
    let failed = pay(&new, "/brief", reference).send().await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "{failed:?}");
    assert_eq!(scene.count().await, 3, "two records and a step");
    // So that the server or the old process deletes them.
    new.kill();
    until("neither a record nor a step is left", async || scene.count().await == 0).await;
    assert_paid(&pay(&old, "/brief", reference).send().await);
    assert_eq!(scene.provider.acts(reference), [all_by("new"), all_by("old")].concat());
}

async fn outlives_ttl(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    let reference = "brief";
    let capture = scene.provider.hold_next("capture", reference);
    let first = begin(pay(&new, "/brief", reference));
    capture.reached().await;
    // A claim that is not renewed would have expired.
    lapse().await;
    sleep(BRIEF).await;
    assert_refused(scene, &old, "/brief", reference).await;
    capture.open();
    assert_paid(&first.await.expect("no panic").expect("it lives"));
    assert_eq!(scene.provider.acts(reference), all_by("new"));
}

async fn starts_late(scene: &Scene<'_>) {
    let (old, new) = scene.deploy();
    let paid = pay(&new, ROUTE, "early").send().await;
    assert_paid(&paid);
    let stored = scene.stored().await;
    let late = scene.try_start_old();
    match (scene.server, late) {
        (Server::Redis(_), Some(late)) => pay(&late, ROUTE, "early").send().await.assert_replays(&paid),
        (Server::Postgres(_) | Server::Sqlite(_), None) => {}
        (Server::Redis(_), None) => panic!("it does not start"),
        (Server::Postgres(_) | Server::Sqlite(_), Some(_)) => panic!("it starts"),
    }
    assert_eq!(scene.stored().await, stored, "it has changed something");
    pay(&old, ROUTE, "early").send().await.assert_replays(&paid);
}
