//! `shipping demo`: the service, its clients and what retries do to it, told in five acts.
//!
//! Owns the stage: a service of its own on a free loopback port, over a temporary database, and its end. The acts are
//! in [`story`], HTTP in [`client`], the looks in [`mod@print`].

mod client;
mod print;
mod story;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::oneshot;

use self::client::Client;
use self::print::Printer;
use self::story::Story;
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
    #[error("a part of the demo panicked")]
    Panicked(#[from] tokio::task::JoinError),
    #[error("{0} lines of the demo are not as told")]
    Different(usize),
}

/// Tells the story to stdout, over a service that is started for it.
pub(crate) async fn run(config: Config) -> Result<(), DemoError> {
    if config.delay <= PATIENCE || config.delay > LONGEST {
        let (least, most) = (PATIENCE.as_millis(), LONGEST.as_millis());
        let reason = format!("the demo needs more than {least} ms and at most {most} ms");
        return Err(config::DELAY.invalid(reason).into());
    }
    let delay = config.delay;
    let records = config.redis_url.as_ref().map_or("in memory", |_| "in Redis");
    let folder = tempfile::tempdir()?;
    let service = Service::start(Config {
        addr: (Ipv4Addr::LOCALHOST, 0).into(),
        tokens: Tokens::parse(&format!("{ACME}=acme,{GLOBEX}=globex"))
            .map_err(|reason| config::TOKENS.invalid(reason))?,
        // One slash: a path of any system, not a host.
        database_url: format!("sqlite:{}?mode=rwc", folder.path().join("demo.db").display()),
        ..config
    })
    .await?;
    let client = Client::new(service.url(), delay)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));

    let printer = Printer::stdout();
    printer.title(records, delay);
    let told = Story::new(client, printer).tell().await;

    drop(stop);
    serving.await??;
    told
}
