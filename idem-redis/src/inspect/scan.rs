//! Scanning the keys of the servers: one `SCAN` on one server for each page.
//!
//! Owns the number of keys that a page looks at, and the check that the cursor still means something. `KEYS` is never used. Does not own
//! the order of the servers ([`nodes`](super::nodes)), nor how a record is read ([`listing`](super::listing)).

use std::ops::RangeInclusive;
use std::str;

use idem_core::inspect::{Cursor, Listed, Page, Selection, Unreadable};
use idem_core::{BackendError, RecordKey};
use redis::{FromRedisValue as _, InfoDict, Value};

use super::listing::WHAT;
use super::nodes::{Node, Nodes, Position, has_changed};
use crate::backend::RedisBackend;
use crate::error::backend_error;

/// How many keys one `SCAN` looks at, about. The server does nothing else meanwhile: a fraction of a millisecond.
const KEYS: RangeInclusive<usize> = 10..=1_000;

/// How much of a run id tells one run of a server from another.
const RUN_LEN: usize = 12;

/// The keys that one `SCAN` has returned.
struct Scanned {
    names: Vec<Vec<u8>>,
    /// Zero at the end.
    cursor: u64,
    /// Empty if the user may not call `INFO`.
    run: String,
}

impl RedisBackend {
    /// The next page of a scan. Whoever asks for a single record gets it without a scan.
    pub(super) async fn page(
        &self,
        selection: &Selection,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, BackendError> {
        let pattern = selection.pattern("*");
        if let Some(key) = RecordKey::from_encoded(&pattern) {
            return self.page_of_one(&key).await;
        }
        let nodes = Nodes::of(self).await?;
        let position = match after {
            Some(cursor) => Some(Position::read(cursor)?),
            None => nodes.first(),
        };
        let position = position.ok_or_else(has_changed)?;
        let node = nodes.node(&position).ok_or_else(has_changed)?;
        // A selection leaves out most keys, so a small page would take many calls.
        let count = if *selection == Selection::all() {
            limit.clamp(*KEYS.start(), *KEYS.end())
        } else {
            *KEYS.end()
        };
        let scanned = self.scanned(node, position.cursor, &pattern, count).await?;
        if !position.run.is_empty() && !scanned.run.is_empty() && position.run != scanned.run {
            return Err(has_changed());
        }
        let mut page = Page {
            commands: if nodes.is_cluster { 4 } else { 2 },
            // Redis does not say how many keys it has looked at.
            looked_at: scanned.names.len().max(if scanned.cursor == 0 { 0 } else { count }) as u64,
            ..Page::default()
        };
        let next = if scanned.cursor == 0 {
            nodes.after(node)
        } else {
            let (cursor, run) = (scanned.cursor, scanned.run);
            Some(Position {
                cursor,
                run,
                ..position
            })
        };
        page.percent = next.as_ref().map_or(Some(100), |next| nodes.percent(next));
        let keys = self.keys_of(scanned.names, selection, &mut page);
        self.list(node.place(), &keys, &mut page).await?;
        if next.is_none() && nodes.is_cluster {
            page.commands += 1;
            if !Nodes::of(self).await?.has_map_of(&nodes) {
                return Err(has_changed());
            }
        }
        page.next = next.as_ref().map(Position::cursor);
        Ok(page)
    }

    /// Sends one `SCAN`, and asks which run of the server answers it.
    async fn scanned(&self, node: &Node, cursor: u64, pattern: &str, count: usize) -> Result<Scanned, BackendError> {
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(self.named(pattern))
            .arg("COUNT")
            .arg(count);
        let answers = self.ask_node(WHAT, node, vec![info, scan]).await?;
        let mut answers = answers.into_iter();
        let (info, scan) = (answers.next(), answers.next());
        let run: Option<String> = info
            .and_then(|info| InfoDict::from_redis_value(info).ok())
            .and_then(|info| info.get("run_id"));
        let scan = scan.unwrap_or(Value::Nil).extract_error();
        let scan = scan.and_then(|scan| Ok(<(u64, Vec<Vec<u8>>)>::from_redis_value(scan)?));
        let (cursor, names) = scan.map_err(|error| backend_error(WHAT, error))?;
        let run = run.unwrap_or_default().chars().take(RUN_LEN).collect();
        Ok(Scanned { names, cursor, run })
    }

    /// The record keys of the names that match. A name that is not one of a record is listed at once.
    fn keys_of(&self, names: Vec<Vec<u8>>, selection: &Selection, page: &mut Page) -> Vec<RecordKey> {
        let (before, after) = self.around();
        let mut keys = Vec::new();
        for name in names {
            let text = str::from_utf8(&name).ok();
            let text = text.and_then(|text| text.strip_prefix(&before)?.strip_suffix(after));
            match text.and_then(RecordKey::from_encoded) {
                Some(key) if selection.matches(&key) => keys.push(key),
                Some(_) => {}
                None => page.records.push(Listed::Unreadable(Unreadable {
                    name: name.escape_ascii().to_string(),
                    why: "its name is not that of a record".into(),
                    version: None,
                })),
            }
        }
        keys
    }
}
