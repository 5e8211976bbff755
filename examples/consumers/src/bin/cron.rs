//! Writes a report each hour, once for all processes: `cron <file with the records>`.
//!
//! `PERIOD` is another number of seconds than an hour's. Prints a line for each scheduled time.

use std::env;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idem_task::{Engine, SqliteBackend, Verdict, idempotent, verdict};
use tokio::time::sleep;

type ReportError = Box<dyn Error + Send + Sync>;

/// Another process waits for the result, and takes over if this one dies.
#[idempotent(engine = engine, name = "hourly-report", scope = global, key = scheduled_time, ttl = "7d", lease = "10s",
    in_flight = "wait", wait = "5m", max_attempts = 3)]
async fn report(engine: Engine, scheduled_time: u64) -> Result<u32, ReportError> {
    println!("reporting {scheduled_time}");
    Ok(std::process::id())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let file = env::args().nth(1).ok_or("usage: cron <file with the records>")?;
    let period = env::var("PERIOD").map_or(Ok(3600), |set| set.parse())?;
    let engine = Engine::new(SqliteBackend::open(&file).await?);
    loop {
        // The last scheduled time, and not the present: a process that starts late, or again, asks for the same report.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let scheduled_time = now.as_secs() - now.as_secs() % period;
        report_until_done(&engine, scheduled_time).await;
        let next = Duration::from_secs(scheduled_time + period);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        sleep(next.saturating_sub(now)).await;
    }
}

async fn report_until_done(engine: &Engine, scheduled_time: u64) {
    loop {
        let reported = report(engine.clone(), scheduled_time).await;
        match (verdict(&reported), reported) {
            (_, Ok(process)) => return println!("reported {scheduled_time} by {process}"),
            (Verdict::Redeliver(after), Err(error)) => {
                tracing::warn!(%error, "a report is tried again");
                sleep(after.max(Duration::from_secs(1))).await;
            }
            (_, Err(error)) => return tracing::error!(%error, "people have to look at a report"),
        }
    }
}
