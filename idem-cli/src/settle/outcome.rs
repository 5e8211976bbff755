//! What an operator gives a record: an answer, a result, or what became of a step.
//!
//! Owns what a record can be given, and how long it stays.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use idem_core::inspect::{RecordDetails, Settlement, StepChange, StepState, StepView};
use idem_core::steps::is_step_name;
use idem_core::{ClaimPolicy, Completion, Record};
use idem_http::markers;

use crate::args::{Resolve, ResolvedStep};
use crate::exit::Failure;
use crate::file;
use crate::view::is_task;

/// The least time for which an outcome is kept that an operator gives: long enough for a client that asks seldom.
const LEAST_TTL: Duration = Duration::from_hours(1);

/// The settlement that the command line asks for.
pub(super) fn settlement(resolve: &Resolve, details: &RecordDetails) -> Result<Settlement, Failure> {
    if resolve.rerun {
        return Ok(Settlement::rerun(None));
    }
    let step = &resolve.step;
    if let Some(name) = &step.name {
        return step_change(step, details, name).map(|change| Settlement::rerun(Some(change)));
    }
    let completion = if resolve.unknown {
        Completion::Unknown
    } else if let Some(result) = &resolve.result {
        Completion::Stored(task_result(result, details)?)
    } else {
        Completion::Stored(answer(resolve, details)?)
    };
    let ttl = resolve.ttl.unwrap_or_else(|| ttl_of(details));
    if !(ClaimPolicy::MIN..=ClaimPolicy::MAX_TTL).contains(&ttl) {
        return Err(Failure::usage("--ttl is at least 100ms and at most ten years"));
    }
    Ok(Settlement::complete(completion, ttl))
}

/// As long as the handler's option says, or as long as the record would have stayed.
fn ttl_of(details: &RecordDetails) -> Duration {
    let ttl = match &details.record {
        Record::Claimed { claim, .. } | Record::Parked { claim } => claim.ttl,
        Record::Completed { .. } => details.summary.expires_in,
    };
    // A record in Redis that has lost its expiry has a hundred years left.
    ttl.clamp(LEAST_TTL, ClaimPolicy::MAX_TTL)
}

fn step_change(asked: &ResolvedStep, details: &RecordDetails, name: &str) -> Result<StepChange, Failure> {
    let steps = details.steps();
    match steps.iter().find(|step| step.name == name) {
        Some(_) if asked.new_step => return Err(Failure::usage("the record has this step; leave out --new-step")),
        Some(step) => may_change(asked, step)?,
        None if asked.new_step => may_add(details, name)?,
        None => {
            let known: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
            return Err(Failure::usage(format!(
                "the record has no step {name}; it has {known:?}. If the step happened and was not recorded, say --new-step"
            )));
        }
    }
    match &asked.done {
        Some(done) => Ok(details.step_done(name, &json_of(done)?)),
        None => Ok(StepChange::NotDone { name: name.to_owned() }),
    }
}

/// Whether the operator may change this step.
fn may_change(asked: &ResolvedStep, step: &StepView) -> Result<(), Failure> {
    let text = match (&step.state, asked.done.is_some()) {
        _ if asked.overwrite => return Ok(()),
        // The result that was not kept is added.
        (StepState::Started, _) | (StepState::DoneWithoutResult, true) | (StepState::Unreadable, false) => {
            return Ok(());
        }
        (StepState::Done(_), _) | (StepState::DoneWithoutResult, false) => {
            "this step is recorded as done; --overwrite changes it all the same, and the next attempt believes it"
        }
        (StepState::Unreadable, true) => {
            "this step is of another version, and what it is compared by would be lost; --overwrite writes over it"
        }
    };
    Err(Failure::usage(text))
}

/// Whether a record can have this further step.
fn may_add(details: &RecordDetails, name: &str) -> Result<(), Failure> {
    if !is_step_name(name) {
        let text = "no step has this name: it is made of 1 to 64 ASCII letters, digits, - and _";
        return Err(Failure::usage(text));
    }
    match details.record {
        Record::Claimed { .. } | Record::Parked { .. } => Ok(()),
        Record::Completed { .. } => Err(Failure::usage("the record has its outcome, and no steps")),
    }
}

/// The result of a task, as `idem-task` records it.
fn task_result(result: &str, details: &RecordDetails) -> Result<Bytes, Failure> {
    if !is_task(&details.summary.key.operation()) {
        return Err(Failure::usage(
            "the record is not of a task; give it an answer by --status",
        ));
    }
    // The version of the layout, and that a result follows: docs/formats.md.
    Ok([&[1, 1], &json_of(result)?[..]].concat().into())
}

/// JSON as it was written, but for white space around it. If its numbers were read and written again, they could lose digits.
fn json_of(text: &str) -> Result<Bytes, Failure> {
    let text = text_or_file(text)?;
    let read: Result<serde_json::Value, _> = serde_json::from_slice(&text);
    read.map_err(|error| Failure::usage("the result is not JSON").because(&error))?;
    Ok(text.slice_ref(text.trim_ascii()))
}

/// The answer of a handler, as it is stored.
fn answer(resolve: &Resolve, details: &RecordDetails) -> Result<Bytes, Failure> {
    if is_task(&details.summary.key.operation()) {
        return Err(Failure::usage("the record is of a task; give it a result by --result"));
    }
    let body = resolve.body.as_deref().map_or(Ok(Bytes::new()), text_or_file)?;
    let mut answer = Response::new(body);
    *answer.status_mut() = resolve.status.unwrap_or_default();
    if matches!(answer.status().as_u16(), 204 | 205 | 304) && !answer.body().is_empty() {
        return Err(Failure::usage("an answer with this status has no body"));
    }
    for line in &resolve.header {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| Failure::usage("a header line is 'name: value'"))?;
        let name = HeaderName::try_from(name.trim())
            .map_err(|error| Failure::usage("--header has a name that no header can have").because(&error))?;
        let value = HeaderValue::try_from(value.trim())
            .map_err(|error| Failure::usage("--header has a value that no header can have").because(&error))?;
        if [markers::REPLAYED, markers::NOT_STORED, markers::CODE].contains(&name) {
            return Err(Failure::usage(format!("`{name}` is a header that only idem sends")));
        }
        answer.headers_mut().append(name, value);
    }
    idem_http::stored::encode(&answer)
        .ok_or_else(|| Failure::usage("the answer has too many header lines, or too long ones"))
}

/// A value as it is; the content of a file after `@`, or of standard input after `@-`. A value that begins with `@` has it twice.
fn text_or_file(text: &str) -> Result<Bytes, Failure> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(text.to_owned().into());
    };
    if path.starts_with('@') {
        return Ok(path.to_owned().into());
    }
    if path == "-" {
        let mut read = Vec::new();
        let reading = std::io::stdin().read_to_end(&mut read);
        reading.map_err(|error| Failure::usage("standard input cannot be read").because(&error))?;
        return Ok(read.into());
    }
    file::read(Path::new(path)).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_every_digit_and_the_order_of_its_members() {
        let written = "{\"b\": 12345678901234567890123, \"a\": 1.10}";
        assert_eq!(json_of(&format!(" {written}\n")).expect("JSON"), written);
        for text in ["", "{", "1 2", "{} x", "\"\\ud800\"", "1e999"] {
            assert!(json_of(text).is_err(), "{text}");
        }
    }
}
