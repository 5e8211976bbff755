//! Allocations of one request each, as JSON: `{"bare, first request": 12.0, …}`.

use idem_bench::within::{CALLS, Within};

/// Over so many, for maps and trees allocate now and then.
const REQUESTS: u32 = 10_000;

fn main() {
    let mut counts = serde_json::Map::new();
    for (callee, kind, name) in CALLS {
        let mut within = Within::warm(callee, kind);
        let requests = within.requests(REQUESTS);
        let counted = allocation_counter::measure(|| within.send(requests)).count_total;
        let each = f64::from(u32::try_from(counted).unwrap_or(u32::MAX)) / f64::from(REQUESTS);
        counts.insert(name.to_owned(), each.into());
    }
    println!("{}", serde_json::Value::Object(counts));
}
