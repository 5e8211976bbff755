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
use crate::find::{find, key_of, version_of_unreadable};
use crate::output::Output;
use crate::show;
use crate::view::rough;
use crate::why::stopping;

pub(crate) async fn forget(operator: &Operator, forget: &Forget, output: &mut Output) -> Result<Exit, Failure> {
    match find(operator, &forget.which, output).await {
        Ok(details) => settle(operator, &details, &forget.grounds, &Settlement::Forget, output).await,
        Err(failure) if failure.is_unreadable() => forget_unreadable(operator, forget, failure, output).await,
        Err(failure) => Err(failure),
    }
}

/// Forgets a record that cannot be read, and so cannot be shown.
async fn forget_unreadable(
    operator: &Operator,
    forget: &Forget,
    failure: Failure,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let grounds = &forget.grounds;
    let key = output.chosen(&key_of(&forget.which)?);
    let Some(now) = version_of_unreadable(operator, &key).await? else {
        return Err(failure);
    };
    output.fail(&failure);
    if !grounds.force {
        output.note(&format!(
            "its version is {now}. A handler may be running under it; --force forgets it all the same"
        ));
        return Ok(Exit::Live);
    }
    let version = match grounds.token {
        Some(token) => token,
        None if grounds.yes => now,
        None => {
            confirm(&Settlement::Forget, output)?;
            now
        }
    };
    apply(operator, (&key, version), grounds, &Settlement::Forget, output).await
}

pub(crate) async fn resolve(operator: &Operator, resolve: &Resolve, output: &mut Output) -> Result<Exit, Failure> {
    if resolve.step.name.is_some() && resolve.step.done.is_none() && !resolve.step.not_done {
        return Err(Failure::usage(
            "say whether the step has happened: --done JSON or --not-done",
        ));
    }
    let details = find(operator, &resolve.which, output).await?;
    let settlement = settlement(resolve, &details)?;
    if let Settlement::Rerun { step, .. } = &settlement {
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
    let (key, now) = (output.chosen(&details.summary.key), details.version());
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
            match operator.show(key).await {
                Ok(Some(details)) => show::print(&details, false, output)?,
                Ok(None) => output.note("gone"),
                // The result is known, whatever the record is now.
                Err(error) => output.fail(&error.into()),
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
