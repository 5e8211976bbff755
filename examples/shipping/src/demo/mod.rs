//! `shipping demo`: the service, its clients and what retries do to it, told in six acts.
//!
//! Owns the stage: a service of its own on a free loopback port, over a temporary database, and its end. Where records
//! are in Redis, a second process serves beside this one. The last act has a process of its own, to kill. The acts are in
//! [`story`], HTTP in [`client`], the other process in [`mod@second`], the looks in [`mod@print`].

mod client;
mod print;
mod second;
mod story;

use std::io;
use std::net::Ipv4Addr;
use std::process::{self, ExitStatus};
use std::time::Duration;

use tokio::sync::oneshot;

use self::client::{Client, RowComes};
use self::print::Printer;
use self::second::Second;
pub(crate) use self::second::{ARGUMENT as SECOND, serve as serve_second};
use self::story::{Stage, Story};
use crate::config::{self, Config, InvalidVariable};
use crate::serve::{ServeError, Service};
use crate::tenant::Tokens;

/// When the impatient client hangs up.
const PATIENCE: Duration = Duration::from_millis(500);

/// The longest an order may take here: its duplicate waits for it, and not for longer than `orders::place_order` says.
const LONGEST: Duration = Duration::from_secs(30);

/// The tenants of the story, by their tokens.
const ACME: &str = "acme-demo";
const GLOBEX: &str = "globex-demo";
const TOKENS: &str = "acme-demo=acme,globex-demo=globex";

/// Why the story could not be told, or came out differently.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("no temporary database")]
    Temporary(#[from] io::Error),
    #[error("the service did not answer as HTTP")]
    Http(#[from] reqwest::Error),
    #[error("waited too long for {0}")]
    TooLong(&'static str),
    #[error("no second process")]
    NoSecond(#[source] io::Error),
    #[error("the second process failed: {0}")]
    SecondEnded(ExitStatus),
    #[error("a part of the demo panicked")]
    Panicked(#[from] tokio::task::JoinError),
    #[error("{0} lines of the demo are not as told")]
    Different(usize),
}

/// Tells the story to stdout, over services that are started for it.
pub(crate) async fn run(config: Config) -> Result<(), DemoError> {
    let delay = config.delay;
    if delay <= PATIENCE || delay > LONGEST {
        let (least, most) = (PATIENCE.as_millis(), LONGEST.as_millis());
        let reason = format!("the demo needs more than {least} ms and at most {most} ms");
        return Err(config::DELAY.invalid(reason).into());
    }
    let shares_records = config.redis_url.is_some();
    let folder = tempfile::tempdir()?;
    // One slash: a path of any system, not a host.
    let database_url = format!("sqlite:{}?mode=rwc", folder.path().join("demo.db").display());
    let service = Service::start(Config {
        addr: (Ipv4Addr::LOCALHOST, 0).into(),
        tokens: Tokens::parse(TOKENS).map_err(|reason| config::TOKENS.invalid(reason))?,
        database_url: database_url.clone(),
        ..config
    })
    .await?;
    let row_comes = if shares_records {
        RowComes::First
    } else {
        RowComes::WithRecord
    };
    let first = Client::new(service.url(), process::id(), row_comes, delay)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));

    let stage = Stage {
        database_url: database_url.clone(),
        row_comes,
        delay,
    };
    let told = if shares_records {
        let second = Second::start(&database_url).await?;
        let others = Client::new(second.url.clone(), second.id, row_comes, delay)?;
        let told = tell(first, others, "in Redis", stage).await;
        second.stop().await?;
        told
    } else {
        tell(first.clone(), first, "in SQLite, beside the orders", stage).await
    };

    drop(stop);
    serving.await??;
    told
}

/// Says who plays, and plays.
async fn tell(first: Client, others: Client, records: &str, stage: Stage) -> Result<(), DemoError> {
    let printer = Printer::stdout();
    printer.title(records, stage.delay);
    printer.cast(&if first.process == others.process {
        let redis = config::REDIS_URL.name;
        format!("one process; with {redis} set, retries and duplicates go to a second one")
    } else {
        format!("first calls go to {first}, retries and duplicates to {others}")
    });
    Story::new(first, others, printer, stage).tell().await
}
