//! The command line.
//!
//! Owns names, help and the forms of values. Does not own what a command does.

#![allow(clippy::doc_markdown, reason = "these comments are the help, which is plain text")]
#![allow(rustdoc::broken_intra_doc_links, reason = "the help has defaults in brackets")]

mod settle;
mod values;
mod why;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use self::settle::{Forget, ForgetScope, Grounds, Resolve, ResolvedStep};
pub(crate) use self::why::{ComparedName, InFlightName, Why};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  the backend cannot be reached or refuses; after `forget` and `resolve`, look at the record again.
     forget-scope: a record failed, or cannot be read and was left
  2  the command line is wrong; nothing was changed
  3  no record is there
  4  the record has changed since it was shown; nothing was changed.
     forget-scope: such records were left
  5  a handler may be running under the record; nothing was changed.
     forget-scope: such records were left
  6  doctor: a check fails; list --expect-none: a record was found
  7  why: the service would refuse the request

A first look:
  export IDEM_URL=redis://127.0.0.1/
  idem list --state unknown
  idem show 'POST%20/payments:acme:invoice-17'
  idem resolve 'POST%20/payments:acme:invoice-17' --status 201 --body '{}' --reason 'charged, ticket 4711'";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// See, explain and settle the records of idempotent requests.
#[derive(Debug, Parser)]
#[command(name = "idem", bin_name = "idem", version, styles = STYLES, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Parser)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Where the records are: redis://…, rediss://…, redis+cluster://…, redis+sentinel://…, redis+unix://…, postgres://…,
    /// sqlite:PATH, or a path. Other users of this machine see the command line: keep a URL with a password in IDEM_URL
    #[arg(long, global = true, env = "IDEM_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Prefix of the keys in Redis, if it is not `idem`
    #[arg(long, global = true, env = "IDEM_PREFIX", value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Table in Postgres or SQLite, if it is not `idem_records`
    #[arg(long, global = true, env = "IDEM_TABLE", value_name = "TABLE")]
    pub(crate) table: Option<String>,
    /// Schema of the table in Postgres
    #[arg(long, global = true, env = "IDEM_SCHEMA", value_name = "SCHEMA")]
    pub(crate) schema: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Show hashes in the place of scopes and idempotency keys, as logs do with hashed keys
    #[arg(long, global = true, env = "IDEM_HASH_KEYS", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) hash_keys: bool,
    /// How long to wait for each answer of the backend
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Your name, for the log of changes [default: user@host]
    #[arg(long = "as", global = true, env = "IDEM_OPERATOR", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Show more log lines of the library; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The URL may have a password.
impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List records
    List(List),
    /// Show everything that is stored about a record
    Show(Show),
    /// Say what the service would do with a request now: run, replay, wait or refuse
    Why(Why),
    /// Remove a record: the next request with its key is a first request
    Forget(Forget),
    /// Settle a record: give it an answer, or let its request run again
    Resolve(Resolve),
    /// Remove all records of a scope. Without --yes, only count them
    ForgetScope(ForgetScope),
    /// Print what changes, live
    Watch(Watch),
    /// Count all records, by operation and state
    Stats(Stats),
    /// Check how the backend is set up
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the man page, as roff
    Man {
        /// Write a page for each command into this folder, and print nothing
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

/// Parts of record keys.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Parts {
    /// Operation, such as 'POST /orders/{id}' or 'task ship'
    #[arg(long, value_name = "NAME")]
    pub(crate) operation: Option<String>,
    /// Scope: a value, (a,b) for a tuple, or @global
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
    /// Idempotency key
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// Filters of a list.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Filters {
    /// Only records in this state. May be given more than once
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Vec<StateName>,
    /// Only records whose first attempt began longer ago, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) older_than: Option<Duration>,
    /// Only records whose first attempt began within this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) younger_than: Option<Duration>,
}

/// The state of a record, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum StateName {
    /// The lease of a claim is live: a handler may be running
    InFlight,
    /// A handler's process died or stalled
    Lapsed,
    /// A handler ended without an outcome, and its steps are kept
    Parked,
    /// Completed, with its answer
    Stored,
    /// Completed, and the answer is not kept
    NotStored,
    /// Completed, and it is unknown whether it took effect
    Unknown,
    /// Of another version, or broken
    Unreadable,
}

impl StateName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Lapsed => "lapsed",
            Self::Parked => "parked",
            Self::Stored => "stored",
            Self::NotStored => "not-stored",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) parts: Parts,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// Stop after so many records. The last page of the store may add some
    #[arg(long, value_name = "N", default_value = "50")]
    pub(crate) limit: std::num::NonZeroUsize,
    /// List all records, however many
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Exit with 6 if a record is found, for alerts
    #[arg(long)]
    pub(crate) expect_none: bool,
    /// Go on where a list has ended: the cursor that it printed
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

/// Which record a command is about.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// The record key, as logs and `idem list` print it. Or give --operation, --scope and --key
    #[arg(value_name = "RECORD")]
    pub(crate) record: Option<String>,
    #[command(flatten)]
    pub(crate) parts: Parts,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Show the body and the header values of the answer, the results of steps, and the fingerprint
    #[arg(long)]
    pub(crate) reveal: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) parts: Parts,
    /// How often to look. A change that lasts for less time is not seen
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::pause)]
    pub(crate) every: Duration,
    /// Stop after so many looks
    #[arg(long, value_name = "N")]
    pub(crate) looks: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Exit with 6 also if there is a warning, or if a check cannot be made
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) parts: Parts,
}
