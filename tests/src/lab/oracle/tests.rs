//! Each rule, broken once: an oracle that finds nothing wrong proves nothing.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::Answer;
use crate::lab::load::{Created, Got};
use crate::lab::plan::{Key, Route};
use crate::lab::service::{Point, Task};

/// A round with one key, told line by line.
struct Tale {
    plan: Plan,
    entries: Vec<Entry>,
    answers: Vec<Answered>,
    rows: Vec<Row>,
}

impl Tale {
    fn new(route: Route, keeps: bool) -> Self {
        let task = Task {
            order: "o".to_owned(),
            takes: 0,
            padding: usize::from(route == Route::Large),
        };
        let key = Key {
            settlements: Vec::new(),
            name: "k".to_owned(),
            route,
            task,
            requests: Vec::new(),
            is_probed: true,
        };
        let plan = Plan {
            seed: 0,
            keeps,
            keys: vec![key],
            faults: Vec::new(),
        };
        let (entries, answers, rows) = Default::default();
        Self {
            plan,
            entries,
            answers,
            rows,
        }
    }

    fn then(mut self, process: u32, event: Event) -> Self {
        let at = Duration::ZERO;
        self.entries.push(Entry { at, process, event });
        self
    }

    /// Process, request and token have the same number.
    fn began(self, number: u32, attempt: u32) -> Self {
        self.began_for("o", number, attempt)
    }

    fn began_for(self, order: &str, number: u32, attempt: u32) -> Self {
        let event = Event::Began {
            key: "k".to_owned(),
            request: format!("r{number}"),
            order: order.to_owned(),
            attempt,
            token: format!("t{number}"),
        };
        self.then(number, event)
    }

    fn ended(self, number: u32) -> Self {
        let token = format!("t{number}");
        self.then(number, Event::Ended { token })
    }

    fn ran(self, number: u32, attempt: u32) -> Self {
        self.began(number, attempt).ended(number)
    }

    fn dies(self, number: u32, at: Point) -> Self {
        let event = Event::Dies {
            key: "k".to_owned(),
            at,
            recorded: at == Point::AfterCompletion,
        };
        self.then(number, event)
    }

    fn killed(self, process: u32) -> Self {
        self.then(0, Event::Killed { process })
    }

    fn committed(mut self, token: u32) -> Self {
        let (key, token) = ("k".to_owned(), format!("t{token}"));
        self.rows.push(Row { key, token });
        self
    }

    fn lost(self) -> Self {
        let what = "FLUSHALL".to_owned();
        self.then(0, Event::Fault { what, loses: true })
    }

    fn got(mut self, request: u32, got: Got) -> Self {
        self.answers.push(Answered {
            key: 0,
            request: format!("r{request}"),
            is_probe: false,
            got,
            process: request,
            asked: Instant::now(),
            at: Instant::now(),
        });
        self
    }

    fn probed(mut self, got: Got) -> Self {
        self = self.got(99, got);
        self.answers.last_mut().expect("one was added").is_probe = true;
        self
    }

    fn got_created(self, request: u32, token: u32, is_stored: bool) -> Self {
        self.got_body(request, token, is_stored, "the answer")
    }

    fn got_body(self, request: u32, token: u32, is_stored: bool, body: &'static str) -> Self {
        let created = Created {
            token: format!("t{token}"),
            is_replay: request != token,
            is_stored,
            answer: Answer {
                status: StatusCode::CREATED,
                headers: HeaderMap::new(),
                body: Bytes::from_static(body.as_bytes()),
            },
        };
        self.got(request, Got::Created(created))
    }

    fn verdict(&self) -> Verdict {
        judge(&self.plan, &self.entries, &self.answers, &self.rows)
    }

    #[track_caller]
    fn keeps_the_rules(&self) -> Verdict {
        let verdict = self.verdict();
        assert!(verdict.violations.is_empty(), "{}", verdict.violations.join("\n"));
        verdict
    }

    #[track_caller]
    fn breaks(&self, rule: &str) {
        let told = self.verdict().violations.join("\n");
        assert!(told.contains(rule), "{rule} was not found broken, but: {told}");
    }
}

fn kept() -> Tale {
    Tale::new(Route::Waiting, true)
}

fn transacting() -> Tale {
    Tale::new(Route::Transacting, true)
}

fn refusing() -> Tale {
    Tale::new(Route::Refusing, true)
}

#[test]
fn one_run_and_its_replays_are_as_they_should_be() {
    let tale = kept().ran(1, 1).got_created(1, 1, true).got_created(2, 1, true);
    let tale = tale.got(3, Got::InFlight).probed(Got::Mismatch);
    assert_eq!(tale.keeps_the_rules().executions, [1]);
}

#[test]
fn a_death_explains_one_more_attempt_and_no_more() {
    let died = || kept().began(1, 1).dies(1, Point::AfterEffect);
    assert_eq!(
        died().ran(2, 2).got_created(3, 2, true).keeps_the_rules().executions,
        [2]
    );
    let killed = kept().began(1, 1).killed(1).ran(2, 2).got_created(3, 2, true);
    assert_eq!(killed.keeps_the_rules().executions, [2]);
    kept().began(1, 1).killed(2).ran(2, 2).breaks("IDEM-1");
    died().ran(2, 2).ran(3, 3).breaks("IDEM-2");
    died().ran(2, 1).breaks("IDEM-7");
    died().began(2, 2).ran(3, 3).ended(2).breaks("IDEM-1");
    refusing()
        .began(1, 1)
        .dies(1, Point::AfterEffect)
        .ran(2, 2)
        .breaks("IDEM-7");
}

#[test]
fn nobody_runs_beside_or_after_a_run_that_lives() {
    kept().began(1, 1).ran(2, 1).ended(1).breaks("IDEM-1");
    kept().ran(1, 1).ran(2, 1).breaks("IDEM-2");
    kept().ran(1, 2).breaks("IDEM-7");
    kept().began(1, 1).breaks("IDEM-5");
}

#[test]
fn nothing_runs_after_an_answer_was_recorded() {
    let died = kept().ran(1, 1).dies(1, Point::AfterCompletion);
    died.ran(2, 2).breaks("IDEM-2");
    let died = kept().ran(1, 1).got_created(1, 1, true).dies(1, Point::BeforeClaim);
    died.ran(2, 2).breaks("IDEM-8");
    let died = kept().ran(1, 1).got_created(1, 1, false).dies(1, Point::BeforeClaim);
    died.ran(2, 2).got_created(3, 2, true).keeps_the_rules();
}

#[test]
fn a_loss_explains_one_more_run_and_is_counted_apart() {
    let lost = || {
        Tale::new(Route::Waiting, false)
            .ran(1, 1)
            .got_created(1, 1, true)
            .lost()
    };
    let verdict = lost().ran(2, 1).got_created(2, 2, true).keeps_the_rules();
    assert_eq!((verdict.executions, verdict.documented), (vec![1], 1));
    lost().ran(2, 1).ran(3, 1).breaks("IDEM-2");
}

#[test]
fn answers_are_of_the_run_they_say_they_are() {
    let ran = || kept().ran(1, 1).got_created(1, 1, true);
    ran().got_body(2, 1, true, "another answer").breaks("IDEM-2");
    ran().got_created(2, 7, true).breaks("IDEM-9");
    ran().got_created(1, 1, true).got(1, Got::Unavailable).breaks("IDEM-13");
    ran().got(2, Got::OutcomeUnknown).breaks("IDEM-7");
    refusing().ran(1, 1).got(2, Got::OutcomeUnknown).breaks("IDEM-13");
    let died = refusing().ran(1, 1).dies(1, Point::BeforeClaim);
    died.got(2, Got::OutcomeUnknown).keeps_the_rules();
    refusing()
        .ran(1, 1)
        .got_created(1, 1, true)
        .got(2, Got::OutcomeUnknown)
        .breaks("IDEM-7");
    ran().got(2, Got::Mismatch).breaks("IDEM-3");
    ran().probed(Got::InFlight).breaks("IDEM-3");
    ran().began_for("another order", 2, 1).breaks("IDEM-3");
    ran().got(2, Got::Hung).breaks("IDEM-4");
    ran().got(2, Got::Other("500 ".to_owned())).breaks("IDEM-11");
}

#[test]
fn only_a_large_answer_may_be_left_out_of_its_record() {
    let large = || Tale::new(Route::Large, true).ran(1, 1).got_created(1, 1, true);
    large().got(2, Got::NotStored).keeps_the_rules();
    large().got(2, Got::NotStored).ran(3, 1).breaks("IDEM-2");
    kept().ran(1, 1).got(2, Got::NotStored).breaks("IDEM-12");
}

#[test]
fn a_run_that_was_rolled_back_is_as_if_it_had_not_run() {
    for told in [Got::RolledBack, Got::NotCommitted, Got::Undone] {
        let undone = || transacting().ran(1, 1).got(1, told.clone());
        let redone = undone().ran(2, 1).got_created(2, 2, true).committed(2);
        assert_eq!(redone.keeps_the_rules().executions, [1]);
        undone().began(2, 1).began(3, 1).ended(2).ended(3).breaks("IDEM-1");
    }
    kept().ran(1, 1).got(1, Got::Undone).breaks("IDEM-17");
}

#[test]
fn rows_records_and_answers_are_one() {
    let ran = || transacting().ran(1, 1).got_created(1, 1, true);
    ran().committed(1).keeps_the_rules();
    ran().breaks("IDEM-16");
    ran().committed(1).committed(1).breaks("IDEM-2");
    transacting().ran(1, 1).got(1, Got::Lost).committed(1).breaks("IDEM-16");
    transacting()
        .ran(1, 1)
        .got(1, Got::RolledBack)
        .committed(1)
        .breaks("IDEM-17");
    let lost = || {
        Tale::new(Route::Transacting, false)
            .ran(1, 1)
            .got_created(1, 1, true)
            .committed(1)
            .lost()
    };
    let twice = lost().ran(2, 1).got_created(2, 2, true).committed(2);
    assert_eq!(twice.keeps_the_rules().documented, 1);
    lost().ran(2, 1).committed(2).ran(3, 1).committed(3).breaks("IDEM-2");
    // The record was lost under the run, so that another one has its row.
    let superseded = Tale::new(Route::Transacting, false).began(1, 1).lost();
    let superseded = superseded
        .ran(2, 1)
        .ended(1)
        .got(1, Got::InFlight)
        .got_created(2, 2, true);
    superseded.committed(2).keeps_the_rules();
}
