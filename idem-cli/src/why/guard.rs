//! The guard of a handler, as the command line describes it.
//!
//! Owns which options of `idem why` stand for which options of a handler.

use std::path::Path;

use idem_core::{AfterCrash, ClaimPolicy, Scope};
use idem_http::fingerprint::FingerprintKey;
use idem_http::why::{ComparedValue, Guard};
use idem_http::{Compared, InFlight, Policy};

use crate::args::{ComparedName, InFlightName, Why};
use crate::exit::Failure;
use crate::file;
use crate::find::{idempotency_key_of, operation_of, scope_of};
use crate::output::Output;

/// With `--value`, the path is compared as well: by its parameters if there is a route.
pub(super) fn check_path(asked: &Why, operation: &str) -> Result<(), Failure> {
    if asked.value.is_none() || asked.whole_path {
        return Ok(());
    }
    if operation.starts_with("layer ") {
        return Err(Failure::usage("a layer compares the whole path: say --whole-path"));
    }
    // A name of the application's own does not tell the route.
    let Some((_method, route)) = operation.split_once(' ').filter(|(_, route)| route.starts_with('/')) else {
        return Ok(());
    };
    let (count, given) = (route.matches('{').count(), asked.parameter.len());
    if count == given {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the route {route} has {count} path parameters, and --parameter is given {given} times"
    )))
}

/// The guard of the handler, as far as the command line says.
pub(super) fn guard(asked: &Why, output: &mut Output) -> Result<Guard, Failure> {
    let scope = asked.scope.as_deref().map_or_else(Scope::global, scope_of);
    let mut guard = Guard::new(asked.operation.as_deref().map_or_else(String::new, operation_of), scope);
    guard.natural_key = asked.natural_key.as_deref().map(idempotency_key_of);
    if guard.natural_key.is_some() && (asked.operation.is_none() || asked.scope.is_none()) {
        return Err(Failure::usage("with --natural-key, say --operation and --scope too"));
    }
    guard.policy = policy(asked)?;
    guard.settings.strict_keys = asked.strict_keys;
    if let Some(value) = &asked.value {
        let value =
            serde_json::from_str(value).map_err(|error| Failure::usage("--value is not JSON").because(&error))?;
        let parameters = (!asked.whole_path).then(|| asked.parameter.clone());
        guard.value = Some(ComparedValue { value, parameters });
    }
    if let Some(file) = &asked.fingerprint_key {
        guard.settings.fingerprint_key = Some(fingerprint_key(file, output)?);
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
        let range = ClaimPolicy::MIN..=ClaimPolicy::MAX_TTL;
        if !range.contains(&within) {
            return Err(Failure::usage("--rerun-within is at least 100ms and at most ten years"));
        }
        policy = policy.with_rerun_within(within);
    }
    Ok(policy)
}

fn fingerprint_key(path: &Path, output: &mut Output) -> Result<FingerprintKey, Failure> {
    let read = file::read(path)?;
    if read.is_empty() {
        return Err(Failure::usage(format!("{} is empty, and no key is", path.display())));
    }
    if read.ends_with(b"\n") {
        output.note("the file of the fingerprint key ends with a line break, which is taken for a part of the key");
    }
    Ok(FingerprintKey::new(&read))
}
