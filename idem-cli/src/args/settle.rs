//! The arguments of the commands that change records.

use std::time::Duration;

use clap::ArgGroup;
use idem_core::inspect::RecordVersion;

use super::{Filters, Which, values};

/// What every change of a record needs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Grounds {
    /// The reason, for the log
    #[arg(long, value_name = "TEXT", value_parser = values::reason)]
    pub(crate) reason: String,
    /// The version that `idem show` printed. The record is changed only if it is still at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) token: Option<RecordVersion>,
    /// Do not ask; change the record as it is now
    #[arg(long)]
    pub(crate) yes: bool,
    /// Change the record even if a handler may be running under it. The handler's outcome is then not recorded
    #[arg(long)]
    pub(crate) force: bool,
}

impl Grounds {
    /// Whether nothing on the command line says which version the operator has seen.
    pub(crate) fn must_ask(&self) -> bool {
        self.token.is_none() && !self.yes
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) grounds: Grounds,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("outcome").required(true).args(["status", "result", "rerun", "step", "unknown"]))]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) grounds: Grounds,
    /// Answer every later request with this status
    #[arg(long, value_name = "STATUS", value_parser = values::status)]
    pub(crate) status: Option<http::StatusCode>,
    /// A header line of the answer, 'name: value'. May be given more than once
    #[arg(long, value_name = "LINE", requires = "status", conflicts_with_all = ["result", "rerun", "step", "unknown"])]
    pub(crate) header: Vec<String>,
    /// The body of the answer; @FILE reads it from a file, and @- from standard input
    #[arg(long, value_name = "TEXT", requires = "status", conflicts_with_all = ["result", "rerun", "step", "unknown"])]
    pub(crate) body: Option<String>,
    /// The result of a task, as JSON; @FILE and @- as for --body
    #[arg(long, value_name = "JSON")]
    pub(crate) result: Option<String>,
    /// Let the next request run again, with the steps that are recorded
    #[arg(long)]
    pub(crate) rerun: bool,
    #[command(flatten)]
    pub(crate) step: ResolvedStep,
    /// Answer every later request with 409 outcome-unknown
    #[arg(long)]
    pub(crate) unknown: bool,
    /// How long the outcome is kept [default: as long as the record says or has left, at least 1h]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with_all = ["rerun", "step"])]
    pub(crate) ttl: Option<Duration>,
}

impl Resolve {
    /// The name of the change, as logs have it.
    pub(crate) fn change(&self) -> &'static str {
        if self.rerun || self.step.name.is_some() {
            "rerun"
        } else {
            "complete"
        }
    }
}

/// What became of a step.
#[derive(Debug, clap::Args)]
pub(crate) struct ResolvedStep {
    /// Say what became of this step, and let the next request go on. Needs --done or --not-done
    #[arg(id = "step", long = "step", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The step has happened, with this result as JSON; @FILE and @- as for --body
    #[arg(long, value_name = "JSON", requires = "step", conflicts_with_all = ["not_done", "status", "result", "rerun", "unknown"])]
    pub(crate) done: Option<String>,
    /// The step has not happened
    #[arg(long, requires = "step", conflicts_with_all = ["status", "result", "rerun", "unknown"])]
    pub(crate) not_done: bool,
    /// The record does not have this step yet: it happened, but its process died before it was recorded. The name must be the one that
    /// the handler uses
    #[arg(long, requires = "done", conflicts_with_all = ["not_done", "status", "result", "rerun", "unknown"])]
    pub(crate) new_step: bool,
    /// Change the step although it is recorded as done, or cannot be read. The next attempt believes it
    #[arg(long, requires = "step", conflicts_with_all = ["new_step", "status", "result", "rerun", "unknown"])]
    pub(crate) overwrite: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetScope {
    /// Scope: a value, (a,b) for a tuple, or @global
    #[arg(long, value_name = "SCOPE", required_unless_present = "operation")]
    pub(crate) scope: Option<String>,
    /// Only of this operation; without --scope, of all scopes
    #[arg(long, value_name = "NAME")]
    pub(crate) operation: Option<String>,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// Remove the records. Without it, they are only counted
    #[arg(long, requires = "reason")]
    pub(crate) yes: bool,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT", value_parser = values::reason)]
    pub(crate) reason: Option<String>,
    /// Remove also records under which a handler may be running
    #[arg(long)]
    pub(crate) force: bool,
}
