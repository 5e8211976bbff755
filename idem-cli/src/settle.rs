//! `idem forget` and `idem resolve`.
//!
//! Owns what has to be known before a record is changed: that the operator has seen it, and that it is still as it was seen.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use idem_core::inspect::{
    LiveClaim, Operator, RecordDetails, RecordVersion, Settled, Settlement, StepChange, StepState,
};
use idem_core::{ClaimPolicy, Completion, Record, RecordKey};
use idem_http::markers;
use serde_json::json;

use crate::args::{Forget, Grounds, Resolve};
use crate::exit::{Exit, Failure};
use crate::find::{find, key_of};
use crate::output::Output;
use crate::show;
use crate::view::{is_task, rough};

/// The least time for which an outcome is kept that an operator gives: long enough for a client that asks seldom.
const LEAST_TTL: Duration = Duration::from_hours(1);

pub(crate) async fn forget(operator: &Operator, forget: &Forget, output: &mut Output) -> Result<Exit, Failure> {
    let grounds = &forget.grounds;
    match (find(operator, &forget.which, output).await, grounds.token) {
        (Ok(details), _) => settle(operator, &details, grounds, &Settlement::Forget, output).await,
        // A claim that has lost its expiry cannot be shown. Its version is in the error, and in the list.
        (Err(failure), Some(version)) if failure.is_unreadable() && grounds.force => {
            let key = output.chosen(&key_of(&forget.which)?);
            apply(operator, (&key, version), grounds, &Settlement::Forget, output).await
        }
        (Err(failure), _) => Err(failure),
    }
}

pub(crate) async fn resolve(operator: &Operator, resolve: &Resolve, output: &mut Output) -> Result<Exit, Failure> {
    if resolve.step.is_some() && resolve.done.is_none() && !resolve.not_done {
        return Err(Failure::usage(
            "say whether the step has happened: --done JSON or --not-done",
        ));
    }
    let details = find(operator, &resolve.which, output).await?;
    let settlement = settlement(resolve, &details)?;
    settle(operator, &details, &resolve.grounds, &settlement, output).await
}

/// Changes the record that was shown, if the operator agrees and nobody else has changed it.
async fn settle(
    operator: &Operator,
    details: &RecordDetails,
    grounds: &Grounds,
    settlement: &Settlement,
    output: &mut Output,
) -> Result<Exit, Failure> {
    // The log line of the change shows it as the output does.
    let (key, now) = (output.chosen(&details.summary.key), details.summary.version());
    let version = match grounds.token {
        Some(token) => token,
        None if grounds.yes => now,
        None => {
            ask(details, settlement, output)?;
            now
        }
    };
    apply(operator, (&key, version), grounds, settlement, output).await
}

/// Changes a record that is at this version, and says what has become of it.
async fn apply(
    operator: &Operator,
    (key, version): (&RecordKey, RecordVersion),
    grounds: &Grounds,
    settlement: &Settlement,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let live = if grounds.force {
        LiveClaim::Force
    } else {
        LiveClaim::Refuse
    };
    let settled = operator.settle(key, version, settlement, live, &grounds.reason).await;
    let settled = settled.map_err(|error| {
        output.note(if error.is_not_written() {
            "nothing was changed"
        } else {
            "the record may have been changed; look at it again"
        });
        Failure::from(error)
    })?;
    report(operator, key, settlement, settled, output).await
}

/// Says what has become of the record.
async fn report(
    operator: &Operator,
    key: &RecordKey,
    settlement: &Settlement,
    settled: Settled,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let record = output.key(key);
    let (exit, result) = match settled {
        Settled::Applied => (Exit::Done, "applied"),
        Settled::Changed => (Exit::Changed, "changed"),
        Settled::Live(_) => (Exit::Live, "live"),
    };
    if output.is_json {
        let left = match settled {
            Settled::Live(left) => u64::try_from(left.as_millis()).ok(),
            _ => None,
        };
        // The steps of a record that runs again are not known here, so neither is its version.
        let is_outcome = settled == Settled::Applied && matches!(settlement, Settlement::Complete { .. });
        let left_version = settlement.leaves().filter(|_| is_outcome);
        output.json(&json!({
            "record": record,
            "result": result,
            "change": settlement.name(),
            "lease_left_ms": left,
            "version": left_version.map(|version| version.to_string()),
        }))?;
        return Ok(exit);
    }
    match settled {
        Settled::Applied => output.line(&format!("{record}: {}", done(settlement)))?,
        Settled::Changed => {
            output.note(&format!("{record} has changed since it was shown, and nothing was done. It is now:"));
            match operator.show(key).await? {
                Some(details) => show::print(&details, false, output)?,
                None => output.note("gone"),
            }
        }
        Settled::Live(left) => output.note(&format!(
            "{record} is claimed for another {}, so its handler may be running. Stop its process, which `idem show` names, or wait. \
             --force changes the record all the same, and the handler's outcome is then not recorded",
            rough(left),
        )),
    }
    Ok(exit)
}

fn done(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Forget => "forgotten; the next request with its key is a first request",
        Settlement::Rerun { .. } => "open again; the next request with its key runs",
        Settlement::Complete { .. } => "settled; later requests with its key get this outcome",
    }
}

/// Asks on a terminal. Without one, nobody can have seen the record.
fn ask(details: &RecordDetails, settlement: &Settlement, output: &mut Output) -> Result<(), Failure> {
    let is_asked = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && !output.is_json;
    if !is_asked {
        return Err(Failure::usage(
            "name the version that you have seen by --token (`idem show` prints it), or say --yes to change the record as it is now",
        ));
    }
    show::print(details, false, output)?;
    let _ = write!(std::io::stderr(), "\n{} this record? [y/N] ", settlement.name());
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::usage("nothing was changed")),
    }
}

fn settlement(resolve: &Resolve, details: &RecordDetails) -> Result<Settlement, Failure> {
    if resolve.rerun {
        return Ok(Settlement::rerun(None));
    }
    if let Some(name) = &resolve.step {
        return step_change(resolve, details, name).map(|change| Settlement::rerun(Some(change)));
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

fn step_change(resolve: &Resolve, details: &RecordDetails, name: &str) -> Result<StepChange, Failure> {
    let steps = details.steps();
    let Some(step) = steps.iter().find(|step| step.name == name) else {
        let known: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "the record has no step {name}; it has {known:?}"
        )));
    };
    let is_done = matches!(step.state, StepState::Done(_) | StepState::DoneWithoutResult);
    if is_done && !resolve.grounds.force {
        return Err(Failure::usage(
            "this step is recorded as done; --force changes it all the same, and the next attempt believes it",
        ));
    }
    let Some(done) = &resolve.done else {
        return Ok(StepChange::NotDone { name: name.to_owned() });
    };
    if step.state == StepState::Unreadable && !resolve.grounds.force {
        let text = "this step is of another version, and what it is compared by would be lost; --force writes over it";
        return Err(Failure::usage(text));
    }
    Ok(details.step_done(name, &json_of(done)?))
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
    read.map_err(|error| Failure::usage("that is no JSON").because(&error))?;
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
        let name =
            HeaderName::try_from(name.trim()).map_err(|error| Failure::usage("a header's name").because(&error))?;
        let value =
            HeaderValue::try_from(value.trim()).map_err(|error| Failure::usage("a header's value").because(&error))?;
        if [markers::REPLAYED, markers::NOT_STORED, markers::CODE].contains(&name) {
            return Err(Failure::usage(format!("`{name}` is a header that only idem sends")));
        }
        answer.headers_mut().append(name, value);
    }
    idem_http::stored::encode(&answer)
        .ok_or_else(|| Failure::usage("the answer has too many header lines, or too long ones"))
}

fn text_or_file(text: &str) -> Result<Bytes, Failure> {
    match text.strip_prefix('@') {
        Some(path) => {
            let read = std::fs::read(Path::new(path));
            let read = read.map_err(|error| Failure::usage(format!("{path} cannot be read")).because(&error))?;
            Ok(read.into())
        }
        None => Ok(text.to_owned().into()),
    }
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
