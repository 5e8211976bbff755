//! The scripts about records with steps.
//!
//! Owns their text. Each declares the record as `KEYS[1]` and the hash of its steps as `KEYS[2]`, which is in the same slot. `ARGV[1]` is
//! the owner's claim in the state with steps. The record may still be in the state without steps: a step that was tried need not have
//! been recorded.

use std::sync::LazyLock;

use crate::scripts::{Script, Telling};

/// Whether `held`, the beginning of the record, is the owner's claim, with steps or without.
const OWN: &str = r"
local claim = ARGV[1]
local held = redis.call('GETRANGE', KEYS[1], 0, #claim)
local function own()
  local state = string.byte(held, 2)
  return (state == 1 or state == 4) and string.byte(held, 1) == string.byte(claim, 1) and string.sub(held, 3) == string.sub(claim, 3)
end
";

fn owners(flags: &str, body: &str) -> String {
    format!("#!lua{flags}{OWN}{body}")
}

/// The answer of [`RECORD_STEP`] if the record has steps and their hash is missing, or should have steps and has none.
pub(super) const STEPS_ARE_GONE: i64 = -1;

/// The answer of [`RECORD_STEP`] if it was the first step, and steps of a record that is gone were there.
pub(super) const FOUND_STEPS_OF_ANOTHER: i64 = 2;

/// `ARGV` claim, name, step, lifetime, 1 if the owner knows of a recorded step. Returns 1 if the step is recorded, 0 if the claim is not in place,
/// [`FOUND_STEPS_OF_ANOTHER`] or [`STEPS_ARE_GONE`].
///
/// The record is written last. If the user may not call `HSET`, the script stops there, and the record must not say that it has steps.
pub(super) static RECORD_STEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&owners(
        " flags=allow-oom",
        r"
if not own() then
  return 0
end
if held == claim then
  if redis.call('PEXPIRE', KEYS[2], ARGV[4]) == 0 then
    return -1
  end
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 1
end
if ARGV[5] == '1' then
  return -1
end
local stale = redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[1], claim, 'PX', ARGV[4])
return 1 + stale
",
    ))
});

/// `ARGV` claim. Returns names and steps, one after the other, or nothing if the claim is not in place.
pub(super) static READ_STEPS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&owners(
        " flags=no-writes",
        r"
if not own() then
  return false
end
if held ~= claim then
  return {}
end
return redis.call('HGETALL', KEYS[2])
",
    ))
});

/// `ARGV` claim, parked claim, ttl. Returns 1 if the claim was in place, or is parked already.
pub(super) static PARK: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(&owners(
        " flags=allow-oom",
        r"
if held == ARGV[2] then
  return 1
end
if not own() then
  return 0
end
if held == claim then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return 1
",
    ))
});

/// `ARGV` claim, lifetime. Returns 1 if the claim is still in place.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&owners(
        " flags=allow-oom",
        r"
if not own() then
  return 0
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
",
    ))
});

/// `ARGV` claim, completed record, lifetime. Returns 1 if the completion is in place.
pub(super) static COMPLETE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(&owners(
        " flags=allow-oom",
        r"
if not own() then
  local state = string.byte(held, 2)
  return (state ~= 7 and string.sub(held, 3, 18) == string.sub(claim, 3, 18)) and 1 or 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return 1
",
    ))
});

/// `KEYS` record, steps, payload; `ARGV` claim, completed record, its lifetime, how long the payload outlives it. Returns what
/// [`COMPLETE_LARGE`](crate::scripts::COMPLETE_LARGE) returns.
pub(super) static COMPLETE_LARGE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(&owners(
        " flags=allow-oom",
        r"
local left = ARGV[3]
local is_own = own()
if held == ARGV[2] then
  left = redis.call('PTTL', KEYS[1])
elseif not is_own then
  local state = string.byte(held, 2)
  return (state ~= 7 and string.sub(held, 3, 18) == string.sub(claim, 3, 18)) and 1 or 0
end
if redis.call('PEXPIRE', KEYS[3], left + ARGV[4]) == 0 then
  return -1
end
if is_own then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', left)
  redis.call('DEL', KEYS[2])
  redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
end
return 1
",
    ))
});

/// `ARGV` claim. Returns 1 if the claim was in place.
pub(super) static RELEASE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(&owners(
        " flags=allow-oom",
        r"
if not own() then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return 1
",
    ))
});

/// `ARGV` lapsed claim, the same parked, new claim, the same without steps, ttl of the lapsed claim, lifetime of the new claim. Returns
/// 1 if the new claim is in place, and 0 if another record is. Where nothing is stored, the new claim has no steps.
pub(super) static TAKE_OVER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua
local held = redis.call('GETRANGE', KEYS[1], 0, math.max(#ARGV[1], #ARGV[3]))
if held == ARGV[3] or held == ARGV[4] then
  return 1
end
if held == '' then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[6])
  return 1
end
if held == ARGV[1] then
  if redis.call('PTTL', KEYS[1]) >= tonumber(ARGV[5]) then
    return 0
  end
elseif held ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
",
    )
});
