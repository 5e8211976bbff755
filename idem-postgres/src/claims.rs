//! Writing claims.
//!
//! Owns the values of a claim's statements, and the order of the statements that claim a key. Does not own their text:
//! [`statements`](crate::statements).

use idem_core::claim::millis_of_time;
use idem_core::{Acquisition, BackendError, BackendErrorKind, Claim, Record, RecordKey};
use sqlx::SqlStr;
use sqlx::postgres::PgRow;

use crate::connections::Lent;
use crate::error::backend_error;
use crate::protocol::{Call, Value};
use crate::record::{self, Id, millis};
use crate::steps::known_state;
use crate::table::Table;

pub(crate) const CLAIMING: &str = "claiming";

/// How often a record that keeps changing is read again before the call fails as unavailable.
const LOOKS: usize = 8;

/// Executes a statement about `claim`. The first row of its result tells whether it had an effect.
pub(crate) async fn write(
    connection: &mut Lent,
    what: &'static str,
    statement: &SqlStr,
    (id, key): (Id, &RecordKey),
    (claim, lapsed): (&Claim, Option<&Claim>),
) -> Result<Option<PgRow>, BackendError> {
    let (token, fingerprint) = (claim.token.to_bytes(), claim.fingerprint.to_bytes());
    let state = known_state(lapsed.unwrap_or(claim));
    let lapsed = lapsed.map(|lapsed| lapsed.token.to_bytes());
    let values = [
        Value::Bytes(id.as_bytes()),
        Value::Text(key.as_str()),
        Value::Bytes(&token),
        Value::Number(i64::from(claim.attempt)),
        Value::Bytes(&fingerprint),
        Value::Number(millis(claim.lease)),
        Value::Number(millis(claim.ttl)),
        Value::Number(i64::try_from(millis_of_time(claim.began_at)).unwrap_or(i64::MAX)),
        Value::Text(claim.owner.as_str()),
        lapsed.as_ref().map_or(Value::NoBytes, |lapsed| Value::Bytes(lapsed)),
        Value::State(state),
    ];
    let values = if lapsed.is_some() { &values[..] } else { &values[..9] };
    let call = Call {
        what,
        statement,
        values,
    };
    connection.ask(call).await
}

/// Claims on a connection that is lent already, so that a claim of two statements waits for a connection only once.
pub(crate) async fn claim(
    table: &Table,
    connection: &mut Lent,
    key: &RecordKey,
    claim: &Claim,
) -> Result<Acquisition, BackendError> {
    let row = (Id::of(key), key);
    let statements = &table.statements;
    for _ in 0..LOOKS {
        let Some(found) = write(connection, CLAIMING, &statements.claim, row, (claim, None)).await? else {
            continue;
        };
        let Some(found) = record::read(&found).map_err(|error| backend_error(CLAIMING, error))? else {
            return Ok(Acquisition::Acquired);
        };
        if let Some(found) = record::decode(found)? {
            // An earlier try of this call has written the claim; its answer was lost.
            let is_ours = matches!(found.record, Record::Claimed { .. }) && found.token == claim.token;
            return Ok(if is_ours {
                Acquisition::Acquired
            } else {
                Acquisition::Existing(found.record)
            });
        }
        let expired = &statements.claim_expired;
        let written = write(connection, CLAIMING, expired, row, (claim, None)).await?;
        if written.is_some() {
            return Ok(Acquisition::Acquired);
        }
    }
    Err(busy())
}

fn busy() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the record changed at every look")
}
