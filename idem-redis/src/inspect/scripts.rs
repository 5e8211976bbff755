//! The scripts of an operator.
//!
//! Owns their text. Those that settle a record declare the record as `KEYS[1]`, the hash of its steps as `KEYS[2]` and the large payload
//! that it may have as `KEYS[3]`, all in one slot. An operator acts on what has already happened, so they have the flag `allow-oom`.

use std::sync::LazyLock;

use crate::record::{BEGINNING_LEN, MAX_CLAIM_LEN};
use crate::scripts::{Script, Telling};

/// `KEYS` record. Returns its beginning, its length and the time that its key has left.
pub(super) static BEGINNING: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        r"#!lua flags=no-writes
local beginning = redis.call('GETRANGE', KEYS[1], 0, {})
return {{beginning, redis.call('STRLEN', KEYS[1]), redis.call('PTTL', KEYS[1])}}
",
        BEGINNING_LEN - 1
    ))
});

/// `KEYS` record, steps. Returns the whole record, the time that its key has left, and names and steps, one after the other; nothing if
/// there is no record.
pub(super) static WHOLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"#!lua flags=no-writes
local held = redis.call('GET', KEYS[1])
if not held then
  return false
end
local state, steps = string.byte(held, 2), {}
if state == 4 or state == 7 then
  steps = redis.call('HGETALL', KEYS[2])
end
return {held, redis.call('PTTL', KEYS[1]), steps}
",
    )
});

/// The answer if the record is not at the version that was given.
pub(super) const CHANGED: i64 = 0;
/// The answer if the record is settled.
pub(super) const APPLIED: i64 = 1;
/// The answer if the lease of the claim has not lapsed. What is left of it follows, in milliseconds.
pub(super) const IS_LIVE: i64 = 2;
/// The answer if the record cannot be read.
pub(super) const IS_UNREADABLE: i64 = -1;
/// The answer if the claim never expires, and whether it is live is unknown.
pub(super) const HAS_NO_EXPIRY: i64 = -2;

/// The beginning of each script that settles a record. `ARGV[1]` is the token and `ARGV[2]` the states of the version that was given;
/// `ARGV[3]` is 1 if a live claim is to be settled too, and `ARGV[4]` the [signature](idem_core::inspect::signature) of the steps. `refusal` is the answer if the record must not be settled.
fn settling(body: &str) -> Telling {
    let flags = "#!lua flags=allow-oom";
    let held = format!("redis.call('GETRANGE', KEYS[1], 0, {MAX_CLAIM_LEN})");
    Telling::new(&format!("{flags}\nlocal held = {held}{AT_VERSION}{body}"))
}

const AT_VERSION: &str = r"
local state = string.byte(held, 2)
local header = string.sub(held, 1, 64 + (string.byte(held, 64) or 0))
local rest = string.sub(held, #header + 1)
local has_ttl = state == 1 or state == 4 or state == 7
local ttl = 0
local function before(one, other)
  for at = 1, math.min(#one, #other) do
    local left, right = string.byte(one, at), string.byte(other, at)
    if left ~= right then
      return left < right
    end
  end
  return #one < #other
end
local function signature()
  if state ~= 4 and state ~= 7 then
    return ''
  end
  local names, parts, flat = {}, {}, redis.call('HGETALL', KEYS[2])
  for at = 1, #flat, 2 do
    local head = string.gsub(string.sub(flat[at + 1], 1, 7), '.', function(byte)
      return string.format('%02x', string.byte(byte))
    end)
    names[#names + 1] = flat[at]
    parts[flat[at]] = flat[at] .. '=' .. head
  end
  table.sort(names, before)
  for at, name in ipairs(names) do
    names[at] = parts[name]
  end
  return table.concat(names, ',')
end
local function refusal()
  if held == '' then
    return {0}
  end
  if string.byte(held, 1) ~= 2 or #header < 64 + (string.byte(held, 64) or 0) or (has_ttl and #rest ~= 16) then
    return {-1}
  end
  if string.sub(held, 3, 18) ~= ARGV[1] or not string.find(ARGV[2], string.char(state), 1, true) then
    return {0}
  end
  if signature() ~= ARGV[4] then
    return {0}
  end
  if has_ttl then
    ttl = struct.unpack('>I8', rest)
  end
  if state == 7 or not has_ttl or ARGV[3] == '1' then
    return nil
  end
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 then
    return {-2}
  end
  if left >= ttl then
    return {2, math.max(left - ttl, 1)}
  end
end
";

/// Removes the record and what belongs to it.
pub(super) static FORGET: LazyLock<Telling> = LazyLock::new(|| {
    settling(
        r"
local refused = refusal()
if refused then
  return refused
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return {1}
",
    )
});

/// `KEYS` record, steps. Removes a record that cannot be read, if it still has the beginning `ARGV[1]` and the length `ARGV[2]`.
pub(super) static FORGET_UNREADABLE: LazyLock<Telling> = LazyLock::new(|| {
    Telling::new(&format!(
        r"#!lua flags=allow-oom
local beginning = redis.call('GETRANGE', KEYS[1], 0, {})
if beginning ~= ARGV[1] or redis.call('STRLEN', KEYS[1]) ~= tonumber(ARGV[2]) or redis.call('EXISTS', KEYS[1]) == 0 then
  return {{0}}
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return {{1}}
",
        BEGINNING_LEN - 1
    ))
});

/// `ARGV[5]` is the new token, and `ARGV[6]` when attempt 1 began, as 8 bytes. If there is `ARGV[7]`, it is the name of a step that
/// changes, and `ARGV[8]` its bytes; without those, the step is removed.
///
/// The record is written last. If the user may not call `HSET` or `HDEL`, the script stops there.
pub(super) static RERUN: LazyLock<Telling> = LazyLock::new(|| {
    settling(
        r"
if state == 7 and string.sub(held, 3, 18) == ARGV[5] then
  return {1}
end
local refused = refusal()
if refused then
  return refused
end
if state == 1 then
  redis.call('DEL', KEYS[2])
end
if has_ttl and ARGV[8] then
  redis.call('HSET', KEYS[2], ARGV[7], ARGV[8])
elseif has_ttl and ARGV[7] then
  redis.call('HDEL', KEYS[2], ARGV[7])
end
if has_ttl and redis.call('PEXPIRE', KEYS[2], ttl) == 1 then
  local parked = string.sub(held, 1, 1) .. '\7' .. ARGV[5] .. string.sub(held, 19, 55) .. ARGV[6] .. string.sub(held, 64)
  redis.call('SET', KEYS[1], parked, 'PX', ttl)
else
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return {1}
",
    )
});

/// `ARGV[5]` is the new token, `ARGV[6]` the new state as one byte, `ARGV[7]` the payload, and `ARGV[8]` its lifetime.
pub(super) static COMPLETE: LazyLock<Telling> = LazyLock::new(|| {
    settling(
        r"
if state and not has_ttl and string.sub(held, 3, 18) == ARGV[5] then
  return {1}
end
local refused = refusal()
if refused then
  return refused
end
local completed = string.sub(held, 1, 1) .. ARGV[6] .. ARGV[5] .. string.sub(header, 19) .. ARGV[7]
redis.call('SET', KEYS[1], completed, 'PX', ARGV[8])
redis.call('DEL', KEYS[2], KEYS[3])
redis.pcall('PUBLISH', KEYS[1] .. ':c', '')
return {1}
",
    )
});
