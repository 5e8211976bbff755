//! Which record a command is about.
//!
//! Owns the ways in which an operator names a record: by the key that a log line has, by its parts, or by the hashes that a log line has
//! in the place of the parts.

use idem_core::inspect::{Listed, Operator, RecordDetails, RecordVersion, Selection};
use idem_core::{BackendErrorKind, IdempotencyKey, RecordKey, Scope};

use crate::args::{Parts, Which};
use crate::exit::Failure;
use crate::output::Output;
use crate::progress::Scanned;

/// How many hexadecimal digits of a hash logs show.
const HASH_LEN: usize = 16;

/// The record that the command line names.
pub(crate) enum Found {
    /// Everything that is stored about it.
    Record(Box<RecordDetails>),
    /// This version cannot read it.
    Unreadable {
        key: RecordKey,
        /// By which it can be forgotten; `None` if another program has written it.
        version: Option<RecordVersion>,
        why: Failure,
    },
}

/// Finds the record that the command line names.
pub(crate) async fn find(operator: &Operator, which: &Which, output: &mut Output) -> Result<Found, Failure> {
    let key = key_of(which)?;
    if let Some(found) = look(operator, &key).await? {
        return Ok(found);
    }
    let hashed = match &which.record {
        Some(record) if is_hashed(record) => by_hash(operator, &key, output).await?,
        _ => None,
    };
    let found = match hashed {
        Some(key) => look(operator, &key).await?,
        None => None,
    };
    found.ok_or_else(|| Failure::absent(format!("nothing is stored under {}", output.key(&key))))
}

/// The record under a key, if there is one.
pub(crate) async fn look(operator: &Operator, key: &RecordKey) -> Result<Option<Found>, Failure> {
    let error = match operator.show(key).await {
        Ok(details) => return Ok(details.map(|details| Found::Record(Box::new(details)))),
        Err(error) if error.kind() == BackendErrorKind::Unreadable => error,
        Err(error) => return Err(error.into()),
    };
    let page = operator.scan(&Selection::of_key(key), None, 1).await?;
    let version = page.records.first().and_then(|listed| match listed {
        // It has been replaced since.
        Listed::Record(_) => None,
        Listed::Unreadable(unreadable) => unreadable.version,
    });
    Ok(Some(Found::Unreadable {
        key: key.clone(),
        version,
        why: error.into(),
    }))
}

/// The key that the command line names.
pub(crate) fn key_of(which: &Which) -> Result<RecordKey, Failure> {
    let Parts {
        operation,
        scope,
        idempotency_key,
    } = &which.parts;
    match (&which.record, operation, scope, idempotency_key) {
        (Some(record), None, None, None) => read_key(record),
        (None, Some(operation), Some(scope), Some(key)) => {
            let key = RecordKey::new(&operation_of(operation), &scope_of(scope), &idempotency_key_of(key));
            key.map_err(|error| Failure::usage("no record can have this key").because(&error))
        }
        _ => Err(Failure::usage(
            "name the record by its key, or by --operation, --scope and --key together",
        )),
    }
}

/// A record key as it is stored and logged; or its three parts as they were before they were encoded.
fn read_key(record: &str) -> Result<RecordKey, Failure> {
    if let Some(key) = RecordKey::from_encoded(record) {
        return Ok(key);
    }
    if record.contains("://") {
        return Err(Failure::usage("a URL goes to --url or IDEM_URL, and is no record key"));
    }
    let parts: Vec<_> = record.split(':').collect();
    let [operation, scope, key] = parts[..] else {
        return Err(Failure::usage(
            "a record key is operation:scope:key, as a log line has it in its field `key`",
        ));
    };
    let key = RecordKey::new(operation, &scope_of(scope), &idempotency_key_of(key));
    key.map_err(|error| Failure::usage("no record can have this key").because(&error))
}

/// A scope in its encoded form, or a single value.
pub(crate) fn scope_of(text: &str) -> Scope {
    Scope::from_encoded(text).unwrap_or_else(|| Scope::of(text))
}

/// An idempotency key in its encoded form, or a single value.
pub(crate) fn idempotency_key_of(text: &str) -> IdempotencyKey {
    IdempotencyKey::from_encoded(text).unwrap_or_else(|| IdempotencyKey::of(text))
}

/// An operation in its encoded form, as a record key has it, or as it was named.
pub(crate) fn operation_of(text: &str) -> String {
    let key = RecordKey::from_encoded(&format!("{text}:@global:any"));
    key.map_or_else(|| text.to_owned(), |key| key.operation().into_owned())
}

/// The records that have the parts that were given.
pub(crate) fn selection_of(parts: &Parts) -> Result<Selection, Failure> {
    let select = || -> Result<Selection, idem_core::KeyError> {
        let mut selection = Selection::all();
        if let Some(operation) = &parts.operation {
            selection = selection.with_operation(&operation_of(operation))?;
        }
        if let Some(scope) = &parts.scope {
            selection = selection.with_scope(&scope_of(scope))?;
        }
        if let Some(key) = &parts.idempotency_key {
            selection = selection.with_key(&idempotency_key_of(key))?;
        }
        Ok(selection)
    };
    select().map_err(|error| Failure::usage("no record can be selected").because(&error))
}

/// Whether the scope and the idempotency key look like the hashes of a log.
fn is_hashed(record: &str) -> bool {
    let is_hash = |part: &&str| part.len() == HASH_LEN && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    record.split(':').skip(1).filter(is_hash).count() == 2
}

/// Looks through the records of the operation for one with these hashes.
async fn by_hash(operator: &Operator, hashed: &RecordKey, output: &mut Output) -> Result<Option<RecordKey>, Failure> {
    let selection = Selection::all().with_operation(&hashed.operation());
    let selection = selection.map_err(|error| Failure::usage("no record can be selected").because(&error))?;
    let is_it = |key: &RecordKey| {
        let shown = key.clone().hashed();
        let mine = (shown.shown_scope().to_string(), shown.shown_key().to_string());
        mine == (hashed.shown_scope().to_string(), hashed.shown_key().to_string())
    };
    let wanted = |listed: &Listed| listed.key().is_some_and(|key| is_it(&key));
    let mut scanned = Scanned::default();
    let progress = |page: &idem_core::inspect::Page| {
        scanned.add(page);
        output.progress(&scanned);
    };
    let found = operator.list(&selection, None, 1, wanted, progress).await?;
    Ok(found.records.iter().find_map(Listed::key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(record: &str) -> Result<String, String> {
        let which = Which {
            record: Some(record.to_owned()),
            parts: Parts::default(),
        };
        key_of(&which)
            .map(|key| key.to_string())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_record_is_named_by_its_encoded_key_or_by_its_parts() {
        let encoded = "POST%20/orders/%7Bid%7D:(acme,7):k%3A1";
        assert_eq!(named(encoded).as_deref(), Ok(encoded));
        assert_eq!(
            named("POST /orders/{id}:acme:k-1").as_deref(),
            Ok("POST%20/orders/%7Bid%7D:acme:k-1")
        );
        assert_eq!(named("ship:@global:k").as_deref(), Ok("ship:@global:k"));
        for record in ["", "k-1", "a:b", "a::c", "a:b:c:d", "redis://:password@host/"] {
            assert!(named(record).is_err(), "{record}");
        }
        let which = Which {
            record: None,
            parts: Parts {
                operation: Some("POST /orders".to_owned()),
                scope: Some("(acme,7)".to_owned()),
                idempotency_key: Some("k:1".to_owned()),
            },
        };
        assert_eq!(key_of(&which).expect("a key").as_str(), "POST%20/orders:(acme,7):k%3A1");
    }

    #[test]
    fn hashes_of_a_log_are_told_from_other_parts() {
        assert!(is_hashed("orders:822b33ad87c148a0:7c35c5a1785d2070"));
        assert!(!is_hashed("orders:acme:7c35c5a1785d2070"));
        assert!(!is_hashed("orders:822b33ad87c148a0"));
    }
}
