//! The scripts: operations that compare the record before they write.
//!
//! Owns the text of the scripts. Each compares the beginning of the stored value, one byte more than the claim has. That is
//! enough: a claim is identified by its token, and a completed record begins with another state and the token. So a script
//! costs the same whatever the size of an answer (IDEM-21).
//!
//! The flag `allow-oom` lets a full server record what has already happened. Scripts that would start new work do not have it.
//!
//! Does not own how a script is sent: [`Link::invoke`](crate::link::Link::invoke).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use idem_core::Fenced;
use redis::{Cmd, ErrorKind, FromRedisValue as _, RedisError, RedisResult, Value};
use tokio::sync::Mutex;

/// The most bytes of a number, to compute the capacity of a command.
pub(crate) const NUMBER_LEN: usize = 20;

/// Converts the answer of a script about one claim: 1 if the claim was in place.
pub(crate) fn fenced(applied: i64) -> Fenced {
    if applied == 1 {
        Fenced::Applied
    } else {
        Fenced::Superseded
    }
}

/// The answer of the scripts of an owner without steps, [`RENEW`], [`COMPLETE`], [`COMPLETE_LARGE`] and [`RELEASE`], if its claim
/// has got its first step while the call was on its way. Nothing is changed then.
pub(crate) const HAS_STEPS: i64 = 2;

/// Converts one element of the answer of a script about several claims.
pub(crate) fn one_of(answer: Value) -> RedisResult<i64> {
    Ok(i64::from_redis_value(answer.extract_error()?)?)
}

/// Converts the answer of a script about several claims that was run for one.
pub(crate) fn first_of(answer: Value) -> RedisResult<i64> {
    let answers: Vec<Value> = Vec::from_redis_value(answer)?;
    answers.into_iter().next().map_or_else(|| Err(too_few()), one_of)
}

pub(crate) fn too_few() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "an answer for fewer claims than asked").into()
}

/// A script and its hash, by which Redis runs it.
pub(crate) struct Script {
    source: String,
    hash: String,
    /// Held while the script is being loaded into a server. The value counts the loads.
    loads: Mutex<u64>,
    loaded: AtomicU64,
}

impl Script {
    pub(crate) fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            hash: redis::Script::new(source).get_hash().to_owned(),
            loads: Mutex::new(0),
            loaded: AtomicU64::new(0),
        }
    }

    /// Loads the script by `load`, unless another call has loaded it while this call waited for its turn. All calls to a new
    /// server find at the same time that it does not know the script.
    pub(crate) async fn load_once(&self, load: impl AsyncFnOnce() -> RedisResult<()>) -> RedisResult<()> {
        let before = self.loaded.load(Ordering::Relaxed);
        let mut loads = self.loads.lock().await;
        if *loads == before {
            load().await?;
            *loads += 1;
            self.loaded.store(*loads, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The command that runs the script on the record under `key`, with capacity for `arguments` arguments of `bytes` bytes in
    /// total.
    pub(crate) fn on(&self, key: &str, arguments: usize, bytes: usize) -> Cmd {
        self.on_all([key], arguments, bytes)
    }

    /// The command that runs the script on the records under `keys`.
    pub(crate) fn on_all<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a str, IntoIter: ExactSizeIterator + Clone>,
        arguments: usize,
        bytes: usize,
    ) -> Cmd {
        const EVALSHA: &str = "EVALSHA";
        let keys = keys.into_iter();
        let bytes = EVALSHA.len() + self.hash.len() + NUMBER_LEN + keys.clone().map(str::len).sum::<usize>() + bytes;
        let mut command = Cmd::with_capacity(3 + keys.len() + arguments, bytes);
        command.arg(EVALSHA).arg(&self.hash).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }

    /// The command that loads the script into a server.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.source);
        command
    }
}

/// A script that publishes a message to the waiters, on the record's channel.
///
/// There is one version for a single server and one for a cluster. The publishing command and the channel are not arguments,
/// because Redis copies and hashes each argument for Lua.
pub(crate) struct Telling {
    server: Script,
    cluster: Script,
}

impl Telling {
    pub(crate) fn new(source: &str) -> Self {
        Self {
            server: Script::new(source),
            cluster: Script::new(&source.replace("'PUBLISH'", "'SPUBLISH'")),
        }
    }

    /// The version for a cluster or for a single server. In a cluster, only the nodes of the record get the message.
    pub(crate) fn on_cluster(&self, is_cluster: bool) -> &Script {
        if is_cluster { &self.cluster } else { &self.server }
    }
}

/// The answer of [`LEASE`] if the claim is not in place.
pub(crate) const CLAIM_IS_GONE: i64 = -3;

/// `KEYS` record; `ARGV` claim. Returns the time that the claim's key has left, or [`CLAIM_IS_GONE`].
pub(crate) static LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=no-writes
if redis.call('GETRANGE', KEYS[1], 0, #ARGV[1]) ~= ARGV[1] then
  return -3
end
return redis.call('PTTL', KEYS[1])
",
    )
});

/// `KEYS` record; `ARGV` lapsed claim, new claim, ttl of the lapsed claim, lifetime of the new claim. Returns 1 if the new
/// claim is in place, and 0 if another record is.
pub(crate) static TAKE_OVER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua
local held = redis.call('GETRANGE', KEYS[1], 0, math.max(#ARGV[1], #ARGV[2]))
if held == ARGV[2] then
  return 1
end
if held ~= '' and (held ~= ARGV[1] or redis.call('PTTL', KEYS[1]) >= tonumber(ARGV[3])) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4])
return 1
",
    )
});

/// `KEYS` record; `ARGV` claim, lifetime. Returns 1 if the claim is still in place, or [`HAS_STEPS`].
pub(crate) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
local held = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1])
if held ~= ARGV[1] then
  return string.byte(held, 2) == 4 and string.sub(held, 3) == string.sub(ARGV[1], 3) and 2 or 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
    )
});

/// `KEYS` records; `ARGV` for each record: claim, completed record, lifetime. Returns for each record 1 if the completion is in
/// place, 0 if another record is, [`HAS_STEPS`], or an error. An error does not stop the others from being completed.
///
/// A claim that was completed with another outcome keeps the first one: bytes 3 to 18 are the token, and byte 2 tells a
/// completed record from a claim, a claim with steps (4) and a parked one (7).
///
/// An error of the publishing command is ignored, because it would not undo the `SET`. It costs a waiter time, not the answer.
pub(crate) static COMPLETE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(
        r"#!lua flags=allow-oom
local answers = {}
for at, key in ipairs(KEYS) do
  local claim, completed = ARGV[3 * at - 2], ARGV[3 * at - 1]
  local answer = redis.pcall('GETRANGE', key, 0, #claim)
  if answer == claim then
    answer = redis.pcall('SET', key, completed, 'PX', ARGV[3 * at])
    if answer.ok then
      redis.pcall('PUBLISH', key .. ':c', '')
      answer = 1
    end
  elseif type(answer) ~= 'table' then
    local state = string.byte(answer, 2)
    if string.sub(answer, 3, 18) ~= string.sub(claim, 3, 18) or state == string.byte(claim, 2) or state == 7 then
      answer = 0
    else
      answer = state == 4 and 2 or 1
    end
  end
  answers[at] = answer
end
return answers
",
    )
});

/// `KEYS` payload; `ARGV` its bytes, lifetime. Does what a plain `SET` does, but also on a full server.
pub(crate) static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
",
    )
});

/// The answer of [`COMPLETE_LARGE`] if the payload is missing. The record is not changed then.
pub(crate) const PAYLOAD_IS_GONE: i64 = -1;

/// `KEYS` record, payload; `ARGV` claim, completed record, its lifetime, how long the payload outlives it. Returns 1 if the
/// completion is in place, 0 if another record is, [`HAS_STEPS`], and [`PAYLOAD_IS_GONE`] if the payload is missing.
pub(crate) static COMPLETE_LARGE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(
        r"#!lua flags=allow-oom
local key = KEYS[1]
local held = redis.call('GETRANGE', key, 0, #ARGV[1])
local left = ARGV[3]
if held == ARGV[2] then
  left = redis.call('PTTL', key)
elseif held ~= ARGV[1] then
  local state = string.byte(held, 2)
  if string.sub(held, 3, 18) ~= string.sub(ARGV[1], 3, 18) or state == string.byte(ARGV[1], 2) or state == 7 then
    return 0
  end
  return state == 4 and 2 or 1
end
if redis.call('PEXPIRE', KEYS[2], left + ARGV[4]) == 0 then
  return -1
end
if held ~= ARGV[2] then
  redis.call('SET', key, ARGV[2], 'PX', left)
  redis.pcall('PUBLISH', key .. ':c', '')
end
return 1
",
    )
});

/// `KEYS` record; `ARGV` claim. Returns 1 if the claim was in place, or [`HAS_STEPS`].
pub(crate) static RELEASE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(
        r"#!lua flags=allow-oom
local key = KEYS[1]
local held = redis.call('GETRANGE', key, 0, #ARGV[1])
if held ~= ARGV[1] then
  return string.byte(held, 2) == 4 and string.sub(held, 3) == string.sub(ARGV[1], 3) and 2 or 0
end
redis.call('DEL', key)
redis.pcall('PUBLISH', key .. ':c', '')
return 1
",
    )
});
