//! Findings about one server, by what it says about itself.
//!
//! Owns memory, persistence, replicas and connections. Does not own the findings that are made at every start too:
//! [`check`](crate::check).

use std::collections::HashMap;

use idem_core::inspect::Finding;
use redis::InfoDict;

/// From which share of a limit on, in percent, a finding warns.
const NEAR: u64 = 90;

/// The settings that `CONFIG GET` has returned; `None` if the user may not call it.
pub(super) type Settings = Option<HashMap<String, String>>;

pub(super) fn memory(info: &InfoDict) -> Finding {
    const CHECK: &str = "memory";
    let number = |name| info.get::<u64>(name);
    let (Some(used), Some(limit)) = (number("used_memory"), number("maxmemory")) else {
        return Finding::unchecked(CHECK, "the server does not tell how much memory it uses");
    };
    let evicts = info
        .get::<String>("maxmemory_policy")
        .is_some_and(|policy| policy != "noeviction");
    match (limit, number("total_system_memory")) {
        (1.., _) if used >= limit && !evicts => Finding::failing(
            CHECK,
            format!(
                "{used} of {limit} bytes of maxmemory are used, and every claim and replay is refused; raise maxmemory"
            ),
        ),
        (1.., _) if is_near(used, limit) => Finding::warning(
            CHECK,
            format!("{used} of {limit} bytes of maxmemory are used; claims and replays are refused when it is full"),
        ),
        (1.., _) => Finding::good(CHECK, format!("{used} of {limit} bytes of maxmemory are used")),
        (0, Some(total @ 1..)) if is_near(used, total) => Finding::warning(
            CHECK,
            format!(
                "{used} of the machine's {total} bytes are used, and maxmemory is not set; the system may end the server"
            ),
        ),
        (0, _) => Finding::good(CHECK, format!("{used} bytes are used, and maxmemory is not set")),
    }
}

fn is_near(used: u64, limit: u64) -> bool {
    u128::from(used) * 100 >= u128::from(limit) * u128::from(NEAR)
}

pub(super) fn persistence(info: &InfoDict, settings: &Settings) -> Finding {
    const CHECK: &str = "persistence";
    let says = |name: &str, value: &str| info.get::<String>(name).is_some_and(|said| said == value);
    let setting = |name: &str| {
        settings
            .as_ref()
            .and_then(|settings| settings.get(name))
            .map(String::as_str)
    };
    if says("loading", "1") {
        let text = "the server is loading its data, and every call fails until it has";
        return Finding::failing(CHECK, text);
    }
    if says("aof_enabled", "1") {
        if says("aof_last_write_status", "err") {
            let text =
                "the append-only file cannot be written, and every claim is refused; look whether the disk is full";
            return Finding::failing(CHECK, text);
        }
        return match setting("appendfsync") {
            Some("always") => Finding::good(
                CHECK,
                "each record is on disk before its call returns (appendfsync always)",
            ),
            Some("no") => Finding::warning(
                CHECK,
                "a crash of the machine can lose the records of half a minute, and each may run once more (appendfsync no)",
            ),
            Some(_) => Finding::good(
                CHECK,
                "an append-only file; a crash of the machine can lose the records of about a second (appendfsync everysec)",
            ),
            None => Finding::good(CHECK, "an append-only file; the user may not read appendfsync"),
        };
    }
    if says("aof_enabled", "0") {
        return without_file(says("rdb_last_bgsave_status", "err"), setting("save"));
    }
    Finding::unchecked(CHECK, "the server does not tell whether it writes to disk")
}

/// The finding about a server without an append-only file.
fn without_file(has_failed: bool, save: Option<&str>) -> Finding {
    const CHECK: &str = "persistence";
    const ADVICE: &str = "each of their requests may run once more; set appendonly yes";
    if has_failed && save != Some("") {
        let text = "the last snapshot has failed, and Redis refuses claims unless stop-writes-on-bgsave-error is off; look \
                    whether the disk is full";
        return Finding::failing(CHECK, text);
    }
    let lost = match save {
        Some("") => "nothing is written to disk: after a restart all records are gone, and",
        Some(_) => "there are snapshots alone: after a crash the records since the last one are gone, and",
        None => "there is no append-only file: after a crash the records since the last snapshot are gone, and",
    };
    Finding::warning(CHECK, format!("{lost} {ADVICE}"))
}

/// The finding about the replicas of a primary. `has_sentinels` if sentinels put a replica in its place when it is lost.
pub(super) fn replicas(info: &InfoDict, has_sentinels: bool) -> Option<Finding> {
    const CHECK: &str = "replicas";
    if info.get::<String>("role")? != "master" {
        return None;
    }
    let count = info.get::<u64>("connected_slaves")?;
    if count == 0 && has_sentinels {
        let text = "no replica is connected, so sentinels have no server to put in the place of this one";
        return Some(Finding::warning(CHECK, text));
    }
    if count == 0 {
        return Some(Finding::good(CHECK, "the server has no replica"));
    }
    let is_behind = |at: &u64| {
        let replica = info.get::<String>(&format!("slave{at}"));
        replica.is_some_and(|replica| !replica.contains("state=online"))
    };
    let behind = (0..count).filter(is_behind).count();
    if behind > 0 {
        let text = format!("{behind} of {count} replicas are not in step with the server");
        return Some(Finding::warning(CHECK, text));
    }
    // It is there only if `min-replicas-to-write` is set.
    if info.get::<u64>("min_slaves_good_slaves").is_some() {
        let text = format!(
            "{count} replicas follow. A failover can lose the records of the last min-replicas-max-lag seconds, and each of \
             their requests may run once more"
        );
        return Some(Finding::good(CHECK, text));
    }
    let text = format!(
        "{count} replicas follow, and the server does not wait for them. A failover can lose the records that a replica does \
         not have, and each of their requests may run once more; set min-replicas-to-write 1 to limit how many"
    );
    Some(Finding::warning(CHECK, text))
}

pub(super) fn clients(info: &InfoDict) -> Option<Finding> {
    const CHECK: &str = "clients";
    let (count, limit) = (info.get::<u64>("connected_clients")?, info.get::<u64>("maxclients")?);
    let text = format!("{count} of {limit} connections are used");
    Some(if is_near(count, limit) {
        Finding::warning(CHECK, text + "; calls fail when none is left")
    } else {
        Finding::good(CHECK, text)
    })
}

#[cfg(test)]
mod tests {
    use idem_core::inspect::Health;

    use super::*;

    #[test]
    fn memory_is_judged_by_its_limit() {
        let health = |info: &str| memory(&InfoDict::new(info)).health;
        let with = |used: u64, more: &str| health(&format!("used_memory:{used}\r\nmaxmemory:1000\r\n{more}"));
        assert_eq!(with(899, "maxmemory_policy:noeviction"), Health::Good);
        assert_eq!(with(900, "maxmemory_policy:noeviction"), Health::Warning);
        assert_eq!(with(1000, "maxmemory_policy:noeviction"), Health::Failing);
        assert_eq!(with(1000, "maxmemory_policy:allkeys-lru"), Health::Warning);
        let without = |used: u64| {
            health(&format!(
                "used_memory:{used}\r\nmaxmemory:0\r\ntotal_system_memory:1000"
            ))
        };
        assert_eq!((without(899), without(900)), (Health::Good, Health::Warning));
        assert_eq!(health(""), Health::Unchecked);
    }

    #[test]
    fn persistence_is_judged_by_what_a_crash_loses() {
        let settings = |save: &str, appendfsync: &str| -> Settings {
            let pairs = [("save", save), ("appendfsync", appendfsync)];
            Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        let health = |info: &str, settings: &Settings| persistence(&InfoDict::new(info), settings).health;
        let file = "loading:0\r\naof_enabled:1\r\naof_last_write_status:ok";
        for (settings, expected) in [
            (settings("", "always"), Health::Good),
            (settings("", "everysec"), Health::Good),
            (settings("", "no"), Health::Warning),
            (None, Health::Good),
        ] {
            assert_eq!(health(file, &settings), expected, "{settings:?}");
        }
        let full = "aof_enabled:1\r\naof_last_write_status:err";
        assert_eq!(health(full, &None), Health::Failing);
        let none = "aof_enabled:0\r\nrdb_last_bgsave_status:ok";
        for settings in [settings("", "everysec"), settings("3600 1", "everysec"), None] {
            assert_eq!(health(none, &settings), Health::Warning, "{settings:?}");
        }
        let failed = "aof_enabled:0\r\nrdb_last_bgsave_status:err";
        assert_eq!(health(failed, &settings("3600 1", "everysec")), Health::Failing);
        assert_eq!(health(failed, &settings("", "everysec")), Health::Warning);
        assert_eq!(health("loading:1", &None), Health::Failing);
        assert_eq!(health("", &None), Health::Unchecked);
    }

    #[test]
    fn replicas_are_judged_by_what_a_failover_loses() {
        let found = |info: &str, has_sentinels| replicas(&InfoDict::new(info), has_sentinels).map(|found| found.health);
        let none = "role:master\r\nconnected_slaves:0";
        assert_eq!(found(none, false), Some(Health::Good));
        assert_eq!(found(none, true), Some(Health::Warning));
        let one = "role:master\r\nconnected_slaves:1\r\nslave0:ip=a,state=online,lag=0";
        assert_eq!(found(one, true), Some(Health::Warning));
        assert_eq!(
            found(&format!("{one}\r\nmin_slaves_good_slaves:1"), true),
            Some(Health::Good)
        );
        let behind = "role:master\r\nconnected_slaves:1\r\nslave0:ip=a,state=wait_bgsave\r\nmin_slaves_good_slaves:1";
        assert_eq!(found(behind, true), Some(Health::Warning));
        assert_eq!(found("role:slave", true), None);
    }

    #[test]
    fn connections_are_judged_by_their_limit() {
        let health = |count: u64| {
            let info = format!("connected_clients:{count}\r\nmaxclients:100");
            clients(&InfoDict::new(&info)).map(|found| found.health)
        };
        assert_eq!((health(89), health(90)), (Some(Health::Good), Some(Health::Warning)));
    }
}
