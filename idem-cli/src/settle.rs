//! `idem forget` and `idem resolve`.
//!
//! Owns what has to be known before a record is changed: that the operator has seen it, and that it is still as it was seen.

mod outcome;

use std::io::{IsTerminal as _, Write as _};

use idem_core::RecordKey;
use idem_core::inspect::{LiveClaim, Operator, RecordDetails, RecordVersion, Settled, Settlement, StepChange};
use serde_json::json;

use self::outcome::settlement;
use crate::args::{Forget, Grounds, Resolve};
use crate::exit::{Exit, Failure};
use crate::find::{Found, find, look};
use crate::output::Output;
use crate::show;
use crate::view::rough;
use crate::why::stopping;

pub(crate) async fn forget(operator: &Operator, forget: &Forget, output: &mut Output) -> Result<Exit, Failure> {
    match find(operator, &forget.which, output).await? {
        Found::Record(details) => settle(operator, &details, &forget.grounds, &Settlement::Forget, output).await,
        Found::Unreadable {
            key,
            version: Some(version),
            why,
        } => {
            output.fail(&why);
            forget_unreadable(operator, &forget.grounds, (&output.chosen(&key), version), output).await
        }
        Found::Unreadable { why, .. } => Err(why),
    }
}

/// Forgets a record that cannot be read, and so cannot be shown.
async fn forget_unreadable(
    operator: &Operator,
    grounds: &Grounds,
    (key, now): (&RecordKey, RecordVersion),
    output: &mut Output,
) -> Result<Exit, Failure> {
    if !grounds.force {
        let text = "a handler may be running under it; --force forgets it all the same";
        output.note(&format!("its version is {now}; {text}"));
        if output.is_json {
            let record = output.key(key);
            let change = Settlement::Forget.name();
            output.json(&json!({
                "record": record, "result": "live", "change": change, "lease_left_ms": null, "version": null,
            }))?;
        }
        return Ok(Exit::Live);
    }
    if grounds.must_ask() {
        confirm(&Settlement::Forget, output)?;
    }
    let version = grounds.token.unwrap_or(now);
    apply(operator, (key, version), grounds, &Settlement::Forget, output).await
}

pub(crate) async fn resolve(operator: &Operator, resolve: &Resolve, output: &mut Output) -> Result<Exit, Failure> {
    if resolve.step.name.is_some() && resolve.step.done.is_none() && !resolve.step.not_done {
        return Err(Failure::usage(
            "say whether the step has happened: --done JSON or --not-done",
        ));
    }
    let details = match find(operator, &resolve.which, output).await? {
        Found::Record(details) => details,
        Found::Unreadable { why, .. } => return Err(why),
    };
    // Whoever has seen another version must not be advised about this one.
    if resolve.grounds.token.is_some_and(|seen| seen != details.version()) {
        let key = output.chosen(&details.summary.key);
        return report(operator, &key, (resolve.change(), None), Settled::Changed, output).await;
    }
    let settlement = settlement(resolve, &details)?;
    note_unsettled_steps(&settlement, &details, output);
    settle(operator, &details, &resolve.grounds, &settlement, output).await
}

/// Names the steps at which the next attempt stops, because this settlement is not about them.
fn note_unsettled_steps(settlement: &Settlement, details: &RecordDetails, output: &mut Output) {
    let Settlement::Rerun { step, .. } = settlement else {
        return;
    };
    let settled = match step {
        Some(StepChange::Done { name, .. } | StepChange::NotDone { name }) => Some(name),
        None => None,
    };
    for step in details.unsettled_steps() {
        if Some(&step.name) != settled {
            output.note(&stopping(&step));
        }
    }
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
    let (key, now) = (output.chosen(&details.summary.key), details.version());
    if grounds.must_ask() {
        ask(details, settlement, output)?;
    }
    let version = grounds.token.unwrap_or(now);
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
    report(operator, key, (settlement.name(), Some(settlement)), settled, output).await
}

/// Says what has become of the record.
async fn report(
    operator: &Operator,
    key: &RecordKey,
    (change, settlement): (&'static str, Option<&Settlement>),
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
        let outcome = settlement.filter(|settlement| matches!(settlement, Settlement::Complete { .. }));
        let left_version = outcome
            .filter(|_| settled == Settled::Applied)
            .and_then(Settlement::leaves);
        output.json(&json!({
            "record": record,
            "result": result,
            "change": change,
            "lease_left_ms": left,
            "version": left_version.map(|version| version.to_string()),
        }))?;
        return Ok(exit);
    }
    match settled {
        Settled::Applied => output.line(&format!("{record}: {}", settlement.map_or(change, done)))?,
        Settled::Changed => {
            output.note(&format!("{record} has changed since it was shown, and nothing was done. It is now:"));
            match look(operator, key).await {
                Ok(Some(Found::Record(details))) => show::print(&details, false, output)?,
                Ok(Some(Found::Unreadable { why, .. })) => output.fail(&why),
                Ok(None) => output.note("gone"),
                // The result is known, whatever the record is now.
                Err(failure) => output.fail(&failure),
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

/// Shows the record, and asks whether to change it.
fn ask(details: &RecordDetails, settlement: &Settlement, output: &mut Output) -> Result<(), Failure> {
    if can_ask(output) {
        show::print(details, false, output)?;
    }
    confirm(settlement, output)
}

fn can_ask(output: &Output) -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && !output.is_json
}

/// Asks on a terminal. Without one, nobody can have seen the record.
fn confirm(settlement: &Settlement, output: &Output) -> Result<(), Failure> {
    if !can_ask(output) {
        return Err(Failure::usage(
            "name the version that you have seen by --token (`idem show` prints it), or say --yes to change the record as it is now",
        ));
    }
    let _ = write!(std::io::stderr(), "\n{} this record? [y/N] ", settlement.name());
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::usage("nothing was changed")),
    }
}
