//! The command line of `idem why`: the request, and the options of its handler.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

/// How a duplicate in flight is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InFlightName {
    Refuse,
    Wait,
    Accept,
}

/// What of a request is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComparedName {
    Request,
    None,
}

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Why {
    /// A file with the request as it is sent, or with a `curl` command. Standard input, if it is left out or `-`
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Operation of the request [default: found by the idempotency key]
    #[arg(long, value_name = "NAME")]
    pub(crate) operation: Option<String>,
    /// Scope of the request [default: found by the idempotency key]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Option<String>,
    /// The natural key of the request, if the handler does not take the key from a header
    #[arg(long, value_name = "KEY")]
    pub(crate) natural_key: Option<String>,
    /// The handler's option `header`
    #[arg(long, value_name = "NAME", default_value = "idempotency-key")]
    pub(crate) header: String,
    /// The handler has `required = false`
    #[arg(long)]
    pub(crate) optional: bool,
    /// The handler's option `fingerprint`
    #[arg(long, value_name = "WHAT", default_value = "request")]
    pub(crate) compare: ComparedName,
    /// The value of the handler's `fingerprint = …` for this request, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "compare")]
    pub(crate) value: Option<String>,
    /// A path parameter of the route, in their order; goes with --value
    #[arg(long, value_name = "VALUE", requires = "value")]
    pub(crate) parameter: Vec<String>,
    /// No route matches, or a layer compares the value, so that the whole path is compared; goes with --value
    #[arg(long, requires = "value", conflicts_with = "parameter")]
    pub(crate) whole_path: bool,
    /// A file with the bytes of the application's fingerprint key, and no line break behind them
    #[arg(long, value_name = "FILE")]
    pub(crate) fingerprint_key: Option<PathBuf>,
    /// Keys have to be quoted: `with_strict_keys`
    #[arg(long)]
    pub(crate) strict_keys: bool,
    /// The handler's option `in_flight`
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    pub(crate) in_flight: InFlightName,
    /// The handler has `after_crash = "refuse"`
    #[arg(long)]
    pub(crate) after_crash_refuse: bool,
    /// The handler's option `max_attempts`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_attempts: Option<u32>,
    /// The handler's option `rerun_within`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) rerun_within: Option<Duration>,
    /// Another request, to say in which parts the two differ
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
}
