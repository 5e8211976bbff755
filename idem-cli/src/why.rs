//! `idem why`.
//!
//! Owns what an operator has to say of a handler, and how the record of a request is found if only its key is known. Does not own the
//! prediction: [`idem_http::why`].

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use idem_core::inspect::{Listed, Operator, RecordDetails, Selection};
use idem_core::{AfterCrash, BackendErrorKind, IdempotencyKey, RecordKey, Scope};
use idem_http::fingerprint::FingerprintKey;
use idem_http::why::{ComparedValue, Forecast, Guard, Guess, differences, guess};
use idem_http::{Compared, IdempotencyProblem, InFlight, Policy};
use serde_json::json;

use crate::args::{ComparedName, InFlightName, Why};
use crate::exit::{Exit, Failure};
use crate::find::scope_of;
use crate::output::Output;
use crate::progress::Scanned;
use crate::request;
use crate::view::RecordView;

/// How many records are named if the idempotency key alone does not tell which one is meant.
const CANDIDATES: usize = 5;

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

pub(crate) async fn why(operator: &Operator, asked: &Why, output: &mut Output) -> Result<Exit, Failure> {
    let request = request::read(asked.file.as_deref())?;
    let known = know(operator, asked, &request, output).await?;
    let record = known.details.as_ref().map(|details| details.record.clone());
    let forecast = if known.is_unreadable {
        Forecast::Refused(IdempotencyProblem::BackendUnavailable)
    } else {
        known.guard.forecast(&request, record, SystemTime::now())
    };
    let mismatch = (forecast == Forecast::Refused(IdempotencyProblem::KeyReused)).then(|| mismatch(&known, &request));
    let against = match &asked.against {
        Some(other) => Some(differences(&known.guard, &request, &request::read(Some(other))?)),
        None => None,
    };
    let exit = match &forecast {
        Forecast::Refused(_) => Exit::Refused,
        _ => Exit::Done,
    };
    if output.is_json {
        let record = known
            .details
            .as_ref()
            .map(|details| RecordView::of(&details.summary, output));
        output.json(&json!({
            "forecast": name(&forecast),
            "text": forecast.to_string(),
            "problem": match &forecast { Forecast::Refused(problem) => Some(problem.code()), _ => None },
            "record_key": known.key.as_ref().map(|key| output.key(key)),
            "record": record,
            "mismatch": mismatch,
            "differs_in": against,
        }))?;
        return Ok(exit);
    }
    output.line(&format!("The request {forecast}."))?;
    if let Some(key) = &known.key {
        let found = if known.is_found {
            ", found by its idempotency key"
        } else {
            ""
        };
        output.line(&format!("Its record is {}{found}.", output.key(key)))?;
    }
    if let Some(mismatch) = mismatch {
        output.line(&mismatch)?;
    }
    if let Some(parts) = against {
        let text = if parts.is_empty() {
            "The two requests count as equal.".to_owned()
        } else {
            format!("The two requests differ in: {}.", parts.join(", "))
        };
        output.line(&text)?;
    }
    Ok(exit)
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
        Guess::Unknown => {
            "It differs from the first request in more than one usual mistake: most likely, a value in the body is \
                           another one. --against FILE compares it with a request that you have."
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
    let mut guard = guard(asked)?;
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
            selection = selection.with_operation(operation)?;
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
    let wanted = |listed: &Listed| key_of(listed).is_some_and(|key| is_candidate(&key));
    let progress = |page: &idem_core::inspect::Page| {
        scanned.add(page);
        others += page.records.iter().filter(|listed| !wanted(listed)).count();
        output.progress(&scanned);
    };
    let page = operator.list(&selection, None, CANDIDATES, wanted, progress).await?;
    let mut keys: Vec<_> = page.records.iter().filter_map(key_of).collect();
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

/// The key of a record in a list, also of one that cannot be read.
fn key_of(listed: &Listed) -> Option<RecordKey> {
    match listed {
        Listed::Record(record) => Some(record.key.clone()),
        Listed::Unreadable(unreadable) => RecordKey::from_encoded(&unreadable.name),
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

fn guard(asked: &Why) -> Result<Guard, Failure> {
    let scope = asked.scope.as_deref().map_or_else(Scope::global, scope_of);
    let mut guard = Guard::new(asked.operation.clone().unwrap_or_default(), scope);
    guard.natural_key = asked.natural_key.as_deref().map(IdempotencyKey::of);
    if guard.natural_key.is_some() && (asked.operation.is_none() || asked.scope.is_none()) {
        return Err(Failure::usage("with --natural-key, say --operation and --scope too"));
    }
    guard.policy = policy(asked)?;
    guard.settings.strict_keys = asked.strict_keys;
    if let Some(value) = &asked.value {
        let value =
            serde_json::from_str(value).map_err(|error| Failure::usage("--value is no JSON").because(&error))?;
        let parameters = (!asked.whole_path).then(|| asked.parameter.clone());
        guard.value = Some(ComparedValue { value, parameters });
    }
    if let Some(file) = &asked.fingerprint_key {
        guard.settings.fingerprint_key = Some(fingerprint_key(file)?);
    }
    Ok(guard)
}

fn policy(asked: &Why) -> Result<Policy, Failure> {
    // The name of a header is a constant everywhere else. A process asks once.
    let header: &'static str = match http::HeaderName::try_from(asked.header.as_str()) {
        Ok(name) => Box::leak(name.as_str().to_owned().into_boxed_str()),
        Err(error) => return Err(Failure::usage("--header is no name of a header").because(&error)),
    };
    let mut policy = Policy::new()
        .with_header(header)
        .with_required(!asked.optional)
        .with_in_flight(match asked.in_flight {
            InFlightName::Refuse => InFlight::Reject,
            InFlightName::Wait => InFlight::Wait,
            InFlightName::Accept => InFlight::Accept,
        });
    if asked.compare == ComparedName::None {
        policy = policy.with_fingerprint(Compared::Nothing);
    }
    if asked.after_crash_refuse {
        policy = policy.with_after_crash(AfterCrash::Refuse);
    }
    if let Some(most) = asked.max_attempts {
        policy = policy.with_max_attempts(most);
    }
    if let Some(within) = asked.rerun_within {
        let range = idem_core::ClaimPolicy::MIN..=idem_core::ClaimPolicy::MAX_TTL;
        if !range.contains(&within) {
            return Err(Failure::usage("--rerun-within is at least 100ms and at most ten years"));
        }
        policy = policy.with_rerun_within(within);
    }
    Ok(policy)
}

fn fingerprint_key(file: &Path) -> Result<FingerprintKey, Failure> {
    let read = std::fs::read(file);
    let read = read.map_err(|error| Failure::usage(format!("{} cannot be read", file.display())).because(&error))?;
    if read.is_empty() {
        return Err(Failure::usage(format!("{} is empty, and no key is", file.display())));
    }
    Ok(FingerprintKey::new(&read))
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
