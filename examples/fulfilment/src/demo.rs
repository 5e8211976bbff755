//! `fulfilment demo`: a stream of orders, and everything that goes wrong with consumers.
//!
//! Owns the order of events, and fails if they do not come out as they must. The siege itself is in [`siege`](crate::siege).

use std::env;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::config::{self, InvalidVariable};
use crate::siege::Siege;
use crate::stage::{Stage, StageError};

/// How much later the carrier answers than it ships.
pub const CARRIER_ANSWERS_AFTER: Duration = Duration::from_millis(20);

/// Why the demo could not be shown, or came out differently.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A variable has a value that cannot be used.
    #[error(transparent)]
    Variable(#[from] InvalidVariable),
    /// This program cannot be found, to be started again.
    #[error("this program cannot be started again")]
    Program(#[source] io::Error),
    /// Something on the stage does not work.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// It came out differently.
    #[error("not as it must be: {}", .0.join("; "))]
    Different(Vec<String>),
}

/// Shows it on stdout.
///
/// # Errors
///
/// [`DemoError`].
pub async fn run() -> Result<(), DemoError> {
    let lasting = Duration::from_secs(config::SECONDS.parse()?);
    let siege = Siege::new(config::ORDERS.parse()?, lasting);
    let program = env::current_exe().map_err(DemoError::Program)?;
    let stage = Stage::start(program, config::REDIS_URL.read()?, CARRIER_ANSWERS_AFTER).await?;
    let Siege { orders, processes, .. } = siege;
    let (records, seconds) = (stage.records(), lasting.as_secs());
    say(&format!(
        "{orders} orders within {seconds} s, {processes} consumer processes that are killed while they work, records in {records:?}\n"
    ));
    let figures = siege.run(&stage).await?;
    say(&figures.to_string());
    let faults = figures.faults();
    if faults.is_empty() {
        say("every order is shipped once");
        Ok(())
    } else {
        Err(DemoError::Different(faults))
    }
}

/// A reader who has left, as in `fulfilment demo | head`, is no failure of the demo.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
