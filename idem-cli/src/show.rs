//! `idem show`.

use std::time::SystemTime;

use idem_core::inspect::{Operator, RecordDetails};

use crate::args::Show;
use crate::exit::{Exit, Failure};
use crate::find::{Found, find};
use crate::output::{Cell, Output};
use crate::view::{self, RecordView};
use crate::why::LOST_STEPS;

pub(crate) async fn show(operator: &Operator, show: &Show, output: &mut Output) -> Result<Exit, Failure> {
    match find(operator, &show.which, output).await? {
        Found::Record(details) => {
            print(&details, show.reveal, output)?;
            if details.has_lost_steps() {
                output.note(LOST_STEPS);
            }
        }
        Found::Unreadable { version, why, .. } => {
            if let Some(version) = version {
                output.note(&format!(
                    "its version is {version}; if it is broken for good, `idem forget` removes it by --force"
                ));
            }
            return Err(why);
        }
    }
    Ok(Exit::Done)
}

/// Prints everything that is stored about a record.
pub(crate) fn print(details: &RecordDetails, reveals: bool, output: &mut Output) -> Result<(), Failure> {
    if output.is_json {
        let view = RecordView::of_details(details, output, reveals);
        return output.json(&view);
    }
    let lines = view::lines(details, output, reveals, SystemTime::now());
    let rows: Vec<_> = lines
        .into_iter()
        .map(|(name, value)| vec![Cell::new(name), Cell::new(value)])
        .collect();
    output.rows(&rows)
}
