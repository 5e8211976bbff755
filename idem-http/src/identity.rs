//! Which record a request belongs to.
//!
//! Owns the way from a scope, and a key in a header or of the application's own, to a record key, and the refusals on that way.

use std::borrow::Cow;

use http::HeaderValue;
use idem_core::key::{KeyError, Part};
use idem_core::{IdempotencyKey, RecordKey, Scope};

use crate::key;
use crate::operation::OperationName;
use crate::policy::Policy;
use crate::problem::{IdempotencyProblem, ProblemDetails};
use crate::settings::Settings;

/// Who a request is, as far as the application says so.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Who owns the key space.
    pub scope: &'a Scope,
    /// Whether the client writes the scope down itself, so that an empty scope is the client's mistake.
    pub is_scope_from_client: bool,
    /// The natural key, where the application takes one in place of the header's.
    pub natural_key: Option<&'a IdempotencyKey>,
    /// The first two lines of the key header.
    pub key_lines: [Option<&'a HeaderValue>; 2],
}

/// The record of a request; none where the request has no key and needs none.
///
/// # Errors
///
/// The problem that the client is told of: the key is missing or malformed, or the scope cannot be used.
pub fn record_key(
    settings: &Settings,
    operation: &OperationName<'_>,
    policy: &Policy,
    caller: &Caller<'_>,
) -> Result<Option<RecordKey>, ProblemDetails> {
    let record = match caller.natural_key {
        Some(natural) => RecordKey::new(operation, caller.scope, natural),
        None => match header_key(settings, policy, caller.key_lines)? {
            Some(key) => RecordKey::of(operation, caller.scope, &key),
            None => return Ok(None),
        },
    };
    match record {
        Ok(record) if settings.hashed_keys => Ok(Some(record.hashed())),
        Ok(record) => Ok(Some(record)),
        Err(error) if is_clients_mistake(&error, caller) => {
            let detail = format!("The request cannot be identified: {error}.");
            Err(settings.details(IdempotencyProblem::KeyInvalid).with_detail(detail))
        }
        Err(error) => {
            tracing::error!(%error, "a request has no usable record key");
            Err(settings.details(IdempotencyProblem::NotConfigured))
        }
    }
}

fn is_clients_mistake(error: &KeyError, caller: &Caller<'_>) -> bool {
    let is_empty_scope = error.part() == Part::Scope && error.is_empty();
    error.part() == Part::Key || error.is_too_long() || (is_empty_scope && caller.is_scope_from_client)
}

/// The key in the header, as the application wants it.
fn header_key<'a>(
    settings: &Settings,
    policy: &Policy,
    lines: [Option<&'a HeaderValue>; 2],
) -> Result<Option<Cow<'a, str>>, ProblemDetails> {
    let invalid = || settings.details(IdempotencyProblem::KeyInvalid);
    let key =
        key::from_lines(lines, settings.strict_keys).map_err(|malformed| invalid().with_detail(malformed.detail()))?;
    let Some(key) = key else {
        if !policy.required() {
            return Ok(None);
        }
        let header = policy.header();
        let detail = format!("This operation needs an idempotency key in the header `{header}`.");
        return Err(settings.details(IdempotencyProblem::KeyMissing).with_detail(detail));
    };
    match settings.key_format.as_ref().map_or(Ok(()), |format| format.check(&key)) {
        Ok(()) => Ok(Some(key)),
        Err(why) if why.is_empty() => Err(invalid()),
        Err(why) => Err(invalid().with_detail(why)),
    }
}
