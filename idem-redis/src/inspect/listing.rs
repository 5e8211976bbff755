//! Reading the records of a page: one script for each record, which reads its beginning alone.
//!
//! Owns the form in which a record is listed. While a page is read, the server serves others after at most [`AT_ONCE`] records. Does not
//! own which records there are: [`scan`](super::scan).

use bytes::Bytes;
use idem_core::inspect::{HEAD_LEN, Listed, Page, RecordState, RecordSummary, RecordVersion, Unreadable};
use idem_core::{BackendError, BackendErrorKind, Claim, Completion, RecordKey};
use redis::{Cmd, ErrorKind, FromRedisValue as _, RedisError, RedisResult, ServerErrorKind, Value};

use super::nodes::has_changed;
use super::{GONE, HAS_NO_EXPIRY, expires_in, scripts};
use crate::backend::RedisBackend;
use crate::error::backend_error;
use crate::large::payload_key;
use crate::reading::rest_of_lease;
use crate::record::{Stored, decode_beginning};
use crate::server::TargetSlot;

/// How many records are read in one pipeline.
const AT_ONCE: usize = 100;

pub(super) const WHAT: &str = "listing records";

impl RedisBackend {
    /// The page with the one record under `key`, if it is there.
    pub(super) async fn page_of_one(&self, key: &RecordKey) -> Result<Page, BackendError> {
        let mut page = Page {
            commands: 1,
            looked_at: 1,
            percent: Some(100),
            ..Page::default()
        };
        let name = self.key(key);
        let command = scripts::BEGINNING.on(&name, 0, 0);
        let reading = self.connection.invoke(WHAT, &name, &scripts::BEGINNING, &command);
        let listed = match reading.await {
            Ok(answer) => listed(key, answer).map_err(error_of_one)?,
            Err(error) if error.kind() == BackendErrorKind::Unreadable => Some(another_programs(key)),
            Err(error) => return Err(error),
        };
        page.records.extend(listed);
        self.read_heads(self.connection.place_of(&name), 0, &mut page).await?;
        Ok(page)
    }

    /// Adds the records under `keys`, which are all at one server, to the page. A record that has gone meanwhile is left out.
    pub(super) async fn list(
        &self,
        place: TargetSlot,
        keys: &[RecordKey],
        page: &mut Page,
    ) -> Result<(), BackendError> {
        for keys in keys.chunks(AT_ONCE) {
            let command = |key| scripts::BEGINNING.on(&self.key(key), 0, 0);
            let commands: Vec<Cmd> = keys.iter().map(command).collect();
            page.commands += commands.len() as u64;
            let script = Some(&*scripts::BEGINNING);
            let answers = self.connection.pipeline(WHAT, place, script, &commands).await?;
            let first = page.records.len();
            for (key, answer) in keys.iter().zip(answers) {
                page.records.extend(listed(key, answer).map_err(error_of_one)?);
            }
            self.read_heads(place, first, page).await?;
        }
        Ok(())
    }

    /// Reads the first bytes of payloads that are beside their records, of the records of the page from `first` on.
    async fn read_heads(&self, place: TargetSlot, first: usize, page: &mut Page) -> Result<(), BackendError> {
        let mut beside = Vec::new();
        let mut commands = Vec::new();
        for (at, listed) in page.records.iter().enumerate().skip(first) {
            if let Listed::Record(record) = listed
                && let RecordState::Stored { len: 1.., head } = &record.state
                && head.is_empty()
            {
                let mut command = redis::cmd("GETRANGE");
                let payload = payload_key(&self.key(&record.key), record.token);
                command.arg(payload).arg(0).arg(HEAD_LEN - 1);
                beside.push(at);
                commands.push(command);
            }
        }
        if commands.is_empty() {
            return Ok(());
        }
        page.commands += commands.len() as u64;
        let answers = self.connection.pipeline(WHAT, place, None, &commands).await?;
        for (at, answer) in beside.into_iter().zip(answers) {
            // Without its first bytes, a record is listed all the same.
            if let Ok(bytes) = Vec::<u8>::from_redis_value(answer)
                && let Some(Listed::Record(record)) = page.records.get_mut(at)
                && let RecordState::Stored { head, .. } = &mut record.state
            {
                *head = bytes.into();
            }
        }
        Ok(())
    }
}

/// The error of one record. If the record is at another server now, the scan would miss others.
fn error_of_one(error: RedisError) -> BackendError {
    let is_elsewhere = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::Moved | ServerErrorKind::TryAgain)
    );
    if is_elsewhere {
        return has_changed();
    }
    backend_error(WHAT, error)
}

/// A record as it is listed, by the answer of [`scripts::BEGINNING`]; `None` if it has gone.
fn listed(key: &RecordKey, answer: Value) -> RedisResult<Option<Listed>> {
    let (beginning, len, left) = match answer.extract_error() {
        Ok(answer) => <(Vec<u8>, usize, i64)>::from_redis_value(answer)?,
        Err(error) if error.code() == Some("WRONGTYPE") => return Ok(Some(another_programs(key))),
        Err(error) => return Err(error),
    };
    if left == GONE {
        return Ok(None);
    }
    let beginning = Bytes::from(beginning);
    let decoded = decode_beginning(&beginning, len).map_err(str::to_owned);
    let decoded = decoded.and_then(|stored| claim_and_state(stored, len.saturating_sub(beginning.len()), left));
    Ok(Some(match decoded {
        Ok((claim, state)) => Listed::Record(RecordSummary {
            key: key.clone(),
            token: claim.token,
            attempt: claim.attempt,
            fingerprint: claim.fingerprint,
            began_at: claim.began_at,
            owner: claim.owner,
            steps: state.listed_steps(),
            state,
            expires_in: expires_in(left),
        }),
        Err(why) => Listed::Unreadable(Unreadable {
            version: Some(version_of(&beginning, len)),
            ..unreadable(key, why)
        }),
    }))
}

fn another_programs(key: &RecordKey) -> Listed {
    let why = "it is not a string, so another program has written it";
    Listed::Unreadable(unreadable(key, why.to_owned()))
}

fn unreadable(key: &RecordKey, why: String) -> Unreadable {
    let (name, version) = (key.to_string(), None);
    Unreadable { name, why, version }
}

/// The version of a record that cannot be read, by the answer of [`scripts::BEGINNING`].
pub(super) fn version_of(beginning: &[u8], len: usize) -> RecordVersion {
    let len = (len as u64).to_be_bytes();
    RecordVersion::of_unreadable(&[&len[..], beginning].concat())
}

/// The claim of a record and how far it has come. Another `cut` bytes of its payload were not read, and its key has `left` milliseconds.
fn claim_and_state(stored: Stored, cut: usize, left: i64) -> Result<(Claim, RecordState), String> {
    Ok(match stored {
        Stored::Claimed(claim) => {
            let remaining = rest_of_lease(left, &claim).ok_or(HAS_NO_EXPIRY)?;
            let has_steps = claim.has_steps;
            (claim, RecordState::Claimed { remaining, has_steps })
        }
        Stored::Parked(claim) => (claim, RecordState::Parked),
        Stored::Completed { claim, completion } => {
            let mut state = RecordState::of_completion(&completion);
            if let (RecordState::Stored { len, .. }, Completion::Stored(_)) = (&mut state, &completion) {
                *len += cut as u64;
            }
            (claim, state)
        }
        Stored::CompletedBeside { claim, len } => {
            let (len, head) = (len as u64, Bytes::new());
            (claim, RecordState::Stored { len, head })
        }
    })
}

#[cfg(test)]
mod tests {
    use idem_core::{Fingerprint, IdempotencyKey, Owner, Scope, Token};

    use super::*;
    use crate::record::encode_claim;

    fn answer(beginning: &[u8], left: i64) -> Value {
        Value::Array(vec![
            Value::BulkString(beginning.to_vec()),
            Value::Int(beginning.len().try_into().expect("a small number")),
            Value::Int(left),
        ])
    }

    /// A server deletes some expired keys only when they are asked for, and others expire after the `SCAN`.
    #[test]
    fn a_record_that_has_gone_since_its_key_was_scanned_is_left_out() {
        let key = RecordKey::new("ship", &Scope::global(), &IdempotencyKey::of("k")).expect("a key");
        assert_eq!(listed(&key, answer(b"", GONE)).expect("an answer"), None);
        let empty = listed(&key, answer(b"", 7)).expect("an answer");
        assert!(matches!(empty, Some(Listed::Unreadable(_))), "{empty:?}");
        let claim = Claim {
            token: Token::from_bytes([7; Token::LEN]),
            attempt: 3,
            fingerprint: Fingerprint::NONE,
            lease: std::time::Duration::from_millis(100),
            ttl: std::time::Duration::from_secs(1),
            began_at: std::time::SystemTime::UNIX_EPOCH,
            owner: Owner::NONE,
            has_steps: false,
        };
        let claimed = listed(&key, answer(&encode_claim(&claim), 1_001)).expect("an answer");
        let Some(Listed::Record(record)) = claimed else {
            panic!("{claimed:?}");
        };
        let remaining = std::time::Duration::from_millis(1);
        assert_eq!(
            record.state,
            RecordState::Claimed {
                remaining,
                has_steps: false
            }
        );
        assert_eq!((record.attempt, record.expires_in.as_millis()), (3, 1_001));
    }
}
