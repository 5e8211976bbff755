//! `idem why`.
//!
//! Owns what an operator has to say of a handler, and how the record of a request is found if only its key is known. Does not own the
//! prediction: [`idem_http::why`].

mod guard;

use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use idem_core::inspect::{Listed, Operator, RecordDetails, Selection, StepState, StepView};
use idem_core::{BackendErrorKind, Fingerprint, RecordKey, Scope};
use idem_http::IdempotencyProblem;
use idem_http::why::{Forecast, Guard, Guess, differences, guess};
use serde_json::json;

use self::guard::{check_path, guard};
use crate::args::Why;
use crate::exit::{Exit, Failure};
use crate::find::{operation_of, scope_of};
use crate::output::Output;
use crate::progress::Scanned;
use crate::request;
use crate::view::RecordView;

/// How many records are named if the idempotency key alone does not tell which one is meant.
const CANDIDATES: usize = 5;

/// What is said of a record whose steps are gone.
pub(crate) const LOST_STEPS: &str = "the record has had steps, and the store has lost them: a handler that asks for them answers 409 \
    outcome-unknown until the record expires or is settled";

/// What is known of the request's record.
struct Known {
    guard: Guard,
    key: Option<RecordKey>,
    details: Option<RecordDetails>,
    /// Whether operation and scope were found by the idempotency key.
    is_found: bool,
    /// Whether a record is there that cannot be read.
    is_unreadable: bool,
}

/// What is said of the request.
struct Said {
    forecast: Forecast,
    /// Where a handler that runs stops.
    unsettled_steps: Vec<StepView>,
    mismatch: Option<String>,
    differs_in: Option<Vec<&'static str>>,
}

pub(crate) async fn why(operator: &Operator, asked: &Why, output: &mut Output) -> Result<Exit, Failure> {
    let request = request::read(asked.file.as_deref())?;
    let known = know(operator, asked, &request, output).await?;
    let record = known.details.as_ref().map(|details| details.record.clone());
    let forecast = if known.is_unreadable {
        Forecast::Refused(IdempotencyProblem::BackendUnavailable)
    } else {
        known.guard.forecast(&request, record, SystemTime::now())
    };
    let is_reused = forecast == Forecast::Refused(IdempotencyProblem::KeyReused);
    let said = Said {
        unsettled_steps: match (&forecast, &known.details) {
            (Forecast::Runs(_), Some(details)) => details.unsettled_steps(),
            _ => Vec::new(),
        },
        mismatch: is_reused.then(|| mismatch(&known, &request)),
        differs_in: match &asked.against {
            Some(other) => Some(differences(&known.guard, &request, &request::read(Some(other))?)),
            None => None,
        },
        forecast,
    };
    if let Some(details) = known.details.as_ref()
        && is_of_other_scheme(&known.guard.fingerprint(&request), &details.summary.fingerprint)
    {
        output.note(
            "the request was not compared with the first one, whose fingerprint is of another scheme. If the service has a fingerprint \
             key, name it by --fingerprint-key; if the handler compares a value, by --value",
        );
    }
    if known.details.as_ref().is_some_and(RecordDetails::has_lost_steps) {
        output.note(LOST_STEPS);
    }
    if output.is_json {
        print_json(&said, &known, output)?;
    } else {
        print(&said, &known, output)?;
    }
    Ok(match said.forecast {
        Forecast::Refused(_) => Exit::Refused,
        _ => Exit::Done,
    })
}

fn print_json(said: &Said, known: &Known, output: &mut Output) -> Result<(), Failure> {
    let record = known.details.as_ref();
    let record = record.map(|details| RecordView::of(&details.summary, output));
    output.json(&json!({
        "forecast": name(&said.forecast),
        "text": said.forecast.to_string(),
        "problem": match &said.forecast { Forecast::Refused(problem) => Some(problem.code()), _ => None },
        "record_key": known.key.as_ref().map(|key| output.key(key)),
        "record": record,
        "found_by_key": known.is_found,
        "unsettled_steps": said.unsettled_steps.iter().map(|step| &step.name).collect::<Vec<_>>(),
        "mismatch": said.mismatch,
        "differs_in": said.differs_in,
    }))
}

fn print(said: &Said, known: &Known, output: &mut Output) -> Result<(), Failure> {
    output.line(&format!("The request {}.", said.forecast))?;
    if let Some(key) = &known.key {
        let found = if known.is_found {
            ", found by its idempotency key: this holds if operation and scope of the request are these"
        } else {
            ""
        };
        output.line(&format!("Its record is {}{found}.", output.key(key)))?;
    }
    for step in &said.unsettled_steps {
        output.line(&stopping(step))?;
    }
    if let Some(mismatch) = &said.mismatch {
        output.line(mismatch)?;
    }
    match said.differs_in.as_deref() {
        Some([]) => output.line("The two requests count as equal."),
        Some(parts) => output.line(&format!("The two requests differ in: {}.", parts.join(", "))),
        None => Ok(()),
    }
}

/// Whether two fingerprints are not compared, although both are of requests.
fn is_of_other_scheme(one: &Fingerprint, other: &Fingerprint) -> bool {
    let none = &Fingerprint::NONE;
    one != other && one != none && other != none && !one.differs_from(other)
}

/// What becomes of an attempt that comes to this step, and how to settle it.
pub(crate) fn stopping(step: &StepView) -> String {
    let name = &step.name;
    match step.state {
        StepState::Started => format!(
            "The step {name} has begun and its end is not recorded, so the handler stops there, unless it reconciles the step: \
             outcome-unknown. `idem resolve --step {name}` with --done or --not-done settles it."
        ),
        StepState::DoneWithoutResult => format!(
            "The step {name} is recorded without its result, so the handler stops there: outcome-unknown. `idem resolve --step {name} \
             --done JSON` gives it its result."
        ),
        StepState::Unreadable => format!(
            "The step {name} cannot be read by this version, so the handler may stop there: outcome-unknown. The version of the service \
             that wrote it can go on."
        ),
        StepState::Done(_) => format!("The step {name} is done."),
    }
}

fn name(forecast: &Forecast) -> &'static str {
    match forecast {
        Forecast::Runs(_) => "runs",
        Forecast::RunsUnprotected => "runs-unprotected",
        Forecast::Replays(_) => "replays",
        Forecast::Waits(_) => "waits",
        Forecast::Accepted(_) => "accepted",
        _ => "refused",
    }
}

/// In which part the request differs from the one whose record is there.
fn mismatch(known: &Known, request: &Request<Bytes>) -> String {
    let Some(details) = &known.details else {
        return String::new();
    };
    match guess(&known.guard, request, &details.summary.fingerprint) {
        Guess::Equal | Guess::NotCompared => String::new(),
        Guess::With(changes) => {
            let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
            format!(
                "It would be equal to the first request with: {}.",
                changes.join(", and ")
            )
        }
        _ => {
            "No usual mistake of a client explains the difference. Most likely a value in the body differs. --against FILE compares the \
             request with another one that you have."
                .to_owned()
        }
    }
}

async fn know(
    operator: &Operator,
    asked: &Why,
    request: &Request<Bytes>,
    output: &mut Output,
) -> Result<Known, Failure> {
    let mut guard = guard(asked, output)?;
    let mut is_found = false;
    if (asked.operation.is_none() || asked.scope.is_none()) && asked.natural_key.is_none() {
        let found = by_key(operator, asked, &guard, request, output).await?;
        is_found = found.is_some();
        let default = format!("{} {}", request.method(), request.uri().path());
        let (operation, scope) = match &found {
            Some(key) => (key.operation().into_owned(), key.scope()),
            None => (default, Scope::of("unknown")),
        };
        if asked.operation.is_none() {
            guard.operation = operation;
        }
        if asked.scope.is_none() {
            guard.scope = scope;
        }
        if !is_found && asked.scope.is_none() {
            // No record has this key in any scope.
            return Ok(Known {
                guard,
                key: None,
                details: None,
                is_found,
                is_unreadable: false,
            });
        }
    }
    check_path(asked, &guard.operation)?;
    let key = guard.record_key(request).ok().flatten();
    let shown = match &key {
        Some(key) => operator.show(key).await,
        None => Ok(None),
    };
    let is_unreadable = matches!(&shown, Err(error) if error.kind() == BackendErrorKind::Unreadable);
    let details = if is_unreadable { None } else { shown? };
    Ok(Known {
        guard,
        key,
        details,
        is_found,
        is_unreadable,
    })
}

/// The one record that has the request's idempotency key, among those of the operation or the scope that were given.
async fn by_key(
    operator: &Operator,
    asked: &Why,
    guard: &Guard,
    request: &Request<Bytes>,
    output: &mut Output,
) -> Result<Option<RecordKey>, Failure> {
    let probe = Guard {
        operation: "any".to_owned(),
        scope: Scope::global(),
        ..guard.clone()
    };
    let Ok(Some(probed)) = probe.record_key(request) else {
        return Ok(None);
    };
    let select = || {
        let mut selection = Selection::all().with_key(&probed.idempotency_key())?;
        if let Some(operation) = &asked.operation {
            selection = selection.with_operation(&operation_of(operation))?;
        }
        if let Some(scope) = &asked.scope {
            selection = selection.with_scope(&scope_of(scope))?;
        }
        Ok(selection)
    };
    let selection =
        select().map_err(|error: idem_core::KeyError| Failure::usage("no record can be selected").because(&error))?;
    let mut scanned = Scanned::default();
    // Records of other operations under the same key.
    let mut others = 0;
    let is_candidate = |key: &RecordKey| asked.operation.is_some() || may_be_of(&key.operation(), request);
    let wanted = |listed: &Listed| listed.key().is_some_and(|key| is_candidate(&key));
    let progress = |page: &idem_core::inspect::Page| {
        scanned.add(page);
        others += page.records.iter().filter(|listed| !wanted(listed)).count();
        output.progress(&scanned);
    };
    let page = operator.list(&selection, None, CANDIDATES, wanted, progress).await?;
    let mut keys: Vec<_> = page.records.iter().filter_map(Listed::key).collect();
    keys.sort();
    keys.dedup();
    match &keys[..] {
        [] if others > 0 => Err(Failure::usage(
            "the records with this idempotency key are of other operations; name the request's by --operation and --scope",
        )),
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let named: Vec<_> = several.iter().map(|key| output.key(key)).collect();
            let text = format!(
                "several records have this idempotency key: {}; name one by --operation and --scope",
                named.join(", ")
            );
            Err(Failure::usage(text))
        }
    }
}

/// Whether a request may belong to an operation: the operation's method and route are those of the request. A name of the
/// application's own says neither, and has to be given by `--operation`.
fn may_be_of(operation: &str, request: &Request<Bytes>) -> bool {
    let operation = operation.strip_prefix("layer ").unwrap_or(operation);
    let Some((method, route)) = operation.split_once(' ') else {
        return false;
    };
    let mut path = request.uri().path().split('/');
    let mut route = route.split('/');
    method == request.method().as_str()
        && loop {
            match (route.next(), path.next()) {
                (None, None) => break true,
                (Some(part), Some(_)) if part.starts_with("{*") => break true,
                (Some(part), Some(own)) if part == own || part.starts_with('{') && !own.is_empty() => {}
                _ => break false,
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_belongs_to_an_operation_of_its_method_and_route() {
        let request = Request::post("/orders/7/lines").body(Bytes::new()).expect("a request");
        for operation in [
            "POST /orders/{id}/lines",
            "layer POST /orders/7/lines",
            "POST /{*rest}",
            "POST /orders/{*rest}",
        ] {
            assert!(may_be_of(operation, &request), "{operation}");
        }
        for operation in [
            "PUT /orders/{id}/lines",
            "POST /orders/{id}",
            "POST /payments",
            "task ship",
            "orders",
            "POST /orders/{id}/lines/{n}",
        ] {
            assert!(!may_be_of(operation, &request), "{operation}");
        }
    }
}
