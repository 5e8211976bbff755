//! Plays one case: sends its script and looks at what comes back.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use idem_axum::Idempotency;
use idem_tests::{Answer, App, Service};
use tokio::task::{JoinHandle, JoinSet};

use super::case::{Also, Case, Expect, Request, Step};
use super::foretold::{Fate, fate, foretell};
use super::forms::Form;
use super::stage::Scene;
use super::wire::Wire;

/// How often somebody who waits for a record's end looks.
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Player {
    wire: Wire,
    scene: Arc<Scene>,
    service: App,
    idempotency: Idempotency,
    /// Of each request of the script; none where it was cut short.
    answers: Vec<Option<Answer>>,
    /// How often the handler has run, if all is well.
    runs: u32,
    held: Vec<(JoinHandle<Option<Answer>>, Expect)>,
    form: Form,
    /// How many answers were foretold.
    foretold: u32,
}

impl Player {
    pub(super) fn new(wire: Wire, scene: Arc<Scene>, service: &Service, form: Form) -> Self {
        Self {
            wire,
            scene,
            service: service.app.clone(),
            idempotency: service.idempotency.clone(),
            answers: Vec::new(),
            runs: 0,
            held: Vec::new(),
            form,
            foretold: 0,
        }
    }

    /// Plays the script; how many answers were foretold.
    pub(super) async fn play(mut self, case: &Case) -> u32 {
        for step in &case.script {
            match step {
                Step::Send(request, expect, also) => {
                    let foretold = self.foretell(case, request).await;
                    let runs = self.scene.runs();
                    let answer = self.wire.send(case.name, request).await;
                    self.check_foretold(foretold, answer.as_ref(), self.scene.runs() > runs);
                    self.check(answer.as_ref(), *expect, request);
                    for also in also {
                        check_also(answer.as_ref().expect("it is checked"), also);
                    }
                    self.answers.push(answer);
                }
                Step::Hold(request) => {
                    assert_eq!(self.foretell(case, request).await.unwrap_or(Fate::Runs), Fate::Runs);
                    self.start(case, request, Expect::Runs(201));
                    self.runs += 1;
                    self.scene.until_runs(self.runs).await;
                }
                Step::Leave(request) => {
                    let left = self.send_beside(case, request);
                    self.runs += 1;
                    self.scene.until_runs(self.runs).await;
                    left.abort();
                    self.service.wait_until_departed(1).await;
                    self.answers.push(None);
                }
                Step::Wait(request) => {
                    assert_eq!(self.foretell(case, request).await.unwrap_or(Fate::Waits), Fate::Waits);
                    self.start(case, request, Expect::Replays(0));
                }
                Step::Open => self.open().await,
                Step::Together(count, request) => self.together(case, *count, request).await,
                Step::Drain => self.idempotency.drain().await,
                Step::UntilItRuns(request, expect) => self.until_it_runs(case, request, *expect).await,
            }
        }
        assert!(self.held.is_empty(), "the script leaves somebody waiting");
        assert_eq!(self.scene.runs(), self.runs, "runs in the end");
        self.foretold
    }

    /// What an operator says that the request will get.
    async fn foretell(&self, case: &Case, request: &Request) -> Option<Fate> {
        // What a handler does in the background changes the record after its answer.
        let operator = self.idempotency.operator("the contract")?;
        foretell(&operator, self.form, case.name, request).await
    }

    fn check_foretold(&mut self, foretold: Option<Fate>, answer: Option<&Answer>, has_run: bool) {
        let Some(foretold) = foretold else { return };
        self.foretold += 1;
        let fate = fate(answer);
        // Extractors and layers around the handler answer without a run.
        let is_by_another = fate == Fate::Runs && !has_run;
        // A request that waits gets the answer of the one that it waits for, or is told that the wait is over.
        let has_waited = foretold == Fate::Waits && fate != Fate::Runs;
        assert!(
            foretold == fate || is_by_another || has_waited,
            "{foretold:?} was foretold of {answer:?}"
        );
    }

    fn send_beside(&self, case: &Case, request: &Request) -> JoinHandle<Option<Answer>> {
        let (wire, request, name) = (self.wire.clone(), request.clone(), case.name);
        tokio::spawn(async move { wire.send(name, &request).await })
    }

    fn start(&mut self, case: &Case, request: &Request, expect: Expect) {
        self.held.push((self.send_beside(case, request), expect));
    }

    async fn open(&mut self) {
        self.scene.open();
        for (sent, expect) in mem::take(&mut self.held) {
            let answer = sent.await.expect("no panic").expect("an answer");
            match expect {
                // It is counted already.
                Expect::Runs(status) => assert_ran(&answer, status),
                Expect::Replays(first) => self.assert_replays(&answer, first, &[]),
                other => panic!("{other:?} is not for one who waits"),
            }
            self.answers.push(Some(answer));
        }
    }

    async fn together(&mut self, case: &Case, count: usize, request: &Request) {
        let mut sent = JoinSet::new();
        for _ in 0..count {
            let (wire, request, name) = (self.wire.clone(), request.clone(), case.name);
            sent.spawn(async move { wire.send(name, &request).await.expect("an answer") });
        }
        for _ in 1..count {
            let refused = sent.join_next().await.expect("they are that many").expect("no panic");
            assert_eq!(
                (refused.status.as_u16(), refused.problem().as_str()),
                (409, "in-flight")
            );
        }
        self.scene.open();
        let first = sent.join_next().await.expect("the last one").expect("no panic");
        assert_ran(&first, 201);
        self.runs += 1;
        self.answers.push(Some(first));
    }

    async fn until_it_runs(&mut self, case: &Case, request: &Request, meanwhile: Expect) {
        loop {
            let answer = self.wire.send(case.name, request).await.expect("an answer");
            if self.scene.runs() > self.runs {
                self.runs += 1;
                assert!(!answer.is_replay());
                return self.answers.push(Some(answer));
            }
            self.check(Some(&answer), meanwhile, request);
            tokio::time::sleep(LOOK).await;
        }
    }

    fn check(&mut self, answer: Option<&Answer>, expect: Expect, request: &Request) {
        let ran = matches!(expect, Expect::Runs(_) | Expect::CutShort);
        self.runs += u32::from(ran);
        assert_eq!(self.scene.runs(), self.runs, "runs after {expect:?} of {answer:?}");
        let Some(answer) = answer else {
            assert!(matches!(expect, Expect::CutShort), "no whole answer");
            return;
        };
        match expect {
            Expect::Runs(status) => assert_ran(answer, status),
            Expect::Replays(first) => self.assert_replays(answer, first, &[]),
            Expect::ReplaysWithout(names) => self.assert_replays(answer, 0, names),
            Expect::ReplaysUnseen => assert!(answer.is_replay(), "{answer:?}"),
            Expect::Problem(status, code) => {
                assert_refused(answer, status, code);
                if request.method != "HEAD" {
                    assert_eq!(answer.problem(), code);
                }
            }
            Expect::Shaped(status, code) => assert_refused(answer, status, code),
            Expect::Refused(status) => {
                assert_eq!(answer.status, status);
                assert!(
                    !answer.is_replay() && !answer.headers.contains_key("x-problem"),
                    "{answer:?}"
                );
            }
            Expect::CutShort => panic!("it is whole: {answer:?}"),
        }
    }

    /// What belongs to the connection is not the answer's, and neither is a name that a `Connection` line has.
    fn assert_replays(&self, answer: &Answer, first: usize, less: &[&str]) {
        let markers: Vec<_> = answer.headers.get_all("idempotent-replayed").iter().collect();
        assert_eq!(markers, ["true"], "{answer:?}");
        let mut first = self.answers[first].clone().expect("it was whole");
        for name in less {
            // Over HTTP/2 a server takes some of them away itself.
            first.headers.remove(*name);
        }
        let mut replay = answer.clone();
        for answer in [&mut first, &mut replay] {
            answer.headers.remove(CONNECTION);
        }
        replay.assert_replays(&first);
    }
}

fn assert_ran(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    // A panic is a run that came to no end.
    let code = answer.headers.get("idempotency-code");
    let panicked = status == 500 && code.is_some_and(|code| code == "panicked");
    assert!(code.is_none() || panicked, "{answer:?}");
    assert!(
        !answer.is_replay() && !answer.headers.contains_key("x-problem"),
        "{answer:?}"
    );
}

/// Layers around the handler know the problem as well.
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let known = answer.headers.get("x-problem").map(HeaderValue::as_bytes);
    assert_eq!(known, Some(code.as_bytes()), "{answer:?}");
    let told = answer.headers.get("idempotency-code").map(HeaderValue::as_bytes);
    assert_eq!(told, Some(code.as_bytes()), "{answer:?}");
    assert!(!answer.is_replay(), "{answer:?}");
}

fn check_also(answer: &Answer, also: &Also) {
    match also {
        Also::Has(name, lines) => {
            let found: Vec<_> = answer.headers.get_all(*name).iter().collect();
            assert_eq!(found, *lines, "{name} of {answer:?}");
        }
        Also::Lacks(name) => assert!(!answer.headers.contains_key(*name), "{name} in {answer:?}"),
        Also::Body(body) => assert_eq!(answer.body, body),
        Also::Tells(member, text) => {
            let body = answer.json();
            let found = body[*member]
                .as_str()
                .map_or_else(|| body[*member].to_string(), str::to_owned);
            assert!(found.contains(text), "{member} is {found}");
        }
        Also::Hides(text) => {
            let shown = format!("{:?} {}", answer.headers, answer.body.escape_ascii());
            assert!(!shown.contains(text), "{shown}");
        }
    }
}
