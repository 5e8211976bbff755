//! Sends so many requests within this process, for a profiler to look at: `idem-bench-requests <call> <requests>`.

use std::process::ExitCode;

use idem_bench::within::{CALLS, Within};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(count)) = (arguments.next(), arguments.next()) else {
        return usage();
    };
    let call = CALLS.into_iter().find(|(_, _, known)| *known == name);
    let (Some((callee, kind, _)), Ok(count)) = (call, count.parse()) else {
        return usage();
    };
    let mut within = Within::warm(callee, kind);
    let requests = within.requests(count);
    within.send(requests);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let calls = CALLS.map(|(_, _, name)| name);
    eprintln!("usage: idem-bench-requests <call> <requests>, with a call of {calls:?}");
    ExitCode::from(2)
}
