//! From environment variables to a [`Config`].
//!
//! Owns names, defaults and syntax, and says which variable is at fault. Whether a database or Redis answers is found
//! out where the service starts. No message repeats a value that may hold a password or a token.

use std::env::{self, VarError};
use std::net::SocketAddr;
use std::time::Duration;

use crate::tenant::Tokens;

/// What an operator chooses.
pub(crate) struct Config {
    pub(crate) addr: SocketAddr,
    /// How long it takes to pack an order.
    pub(crate) delay: Duration,
    pub(crate) tokens: Tokens,
    pub(crate) database_url: String,
    pub(crate) redis_url: Option<String>,
}

/// Where records are kept.
pub(crate) enum Records<'a> {
    Redis(&'a str),
    Postgres(&'a str),
    Sqlite(&'a str),
}

/// An hour: longer is a slip of the hand.
const MAX_DELAY_MS: u64 = 3_600_000;

/// An environment variable, for reading it and for `--help`.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) meaning: &'static str,
}

pub(crate) const ADDR: Variable = Variable {
    name: "SHIPPING_ADDR",
    default: Some("127.0.0.1:1323"),
    meaning: "IP address and port to listen on; port 0 takes a free one",
};
pub(crate) const DELAY: Variable = Variable {
    name: "SHIPPING_DELAY_MS",
    default: Some("2000"),
    meaning: "how long it takes to pack an order, which makes races visible",
};
pub(crate) const TOKENS: Variable = Variable {
    name: "SHIPPING_TOKENS",
    default: Some("acme-demo=acme,globex-demo=globex"),
    meaning: "bearer tokens and their tenants: token=tenant,token=tenant",
};
pub(crate) const DATABASE_URL: Variable = Variable {
    name: "DATABASE_URL",
    default: Some("sqlite://shipping.db?mode=rwc"),
    meaning: "sqlite://file?mode=rwc or postgres://user:password@host/database; keeps the records as well, without Redis",
};
pub(crate) const REDIS_URL: Variable = Variable {
    name: "REDIS_URL",
    default: None,
    meaning: "redis://user:password@host:port/; keeps the records, which are beside the orders without it",
};
pub(crate) const OTLP_ENDPOINT: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: None,
    meaning: "http://host:port of an OpenTelemetry collector, for traces over OTLP; without it, none are made",
};
pub(crate) const OTEL_SERVICE_NAME: Variable = Variable {
    name: "OTEL_SERVICE_NAME",
    default: Some("shipping"),
    meaning: "what the service is called in traces",
};
const RUST_LOG: Variable = Variable {
    name: "RUST_LOG",
    default: Some("info; demo: error"),
    meaning: "what is logged to stderr",
};

/// All of them, in the order of `--help`.
pub(crate) const VARIABLES: [Variable; 8] = [
    ADDR,
    DELAY,
    TOKENS,
    DATABASE_URL,
    REDIS_URL,
    OTLP_ENDPOINT,
    OTEL_SERVICE_NAME,
    RUST_LOG,
];

/// A variable whose value cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub(crate) struct InvalidVariable {
    name: &'static str,
    reason: String,
}

impl Variable {
    pub(crate) fn read(&self) -> Result<Option<String>, InvalidVariable> {
        match env::var(self.name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(self.default.map(str::to_owned)),
            Err(VarError::NotUnicode(_)) => Err(self.invalid("is not UTF-8")),
        }
    }

    /// Reads a variable that has a default.
    fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, InvalidVariable> {
        let value = self.read()?.unwrap_or_default();
        parse(&value).map_err(|reason| self.invalid(reason))
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> InvalidVariable {
        let (name, reason) = (self.name, reason.into());
        InvalidVariable { name, reason }
    }
}

impl Config {
    /// Reads and checks every variable.
    pub(crate) fn from_env() -> Result<Self, InvalidVariable> {
        Ok(Self {
            addr: ADDR.parse(addr)?,
            delay: DELAY.parse(delay)?,
            tokens: TOKENS.parse(Tokens::parse)?,
            database_url: DATABASE_URL.parse(database_url)?,
            redis_url: REDIS_URL.read()?,
        })
    }

    /// Redis if it is named, or else the database of the orders.
    pub(crate) fn records(&self) -> Records<'_> {
        match &self.redis_url {
            Some(url) => Records::Redis(url),
            None if self.database_url.starts_with("sqlite:") => Records::Sqlite(&self.database_url),
            None => Records::Postgres(&self.database_url),
        }
    }
}

fn addr(value: &str) -> Result<SocketAddr, String> {
    value
        .parse()
        .map_err(|_| format!("{value:?} is not an IP address and port, such as 127.0.0.1:1323"))
}

fn delay(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(millis @ ..=MAX_DELAY_MS) => Ok(Duration::from_millis(millis)),
        _ => Err(format!(
            "{value:?} is not a whole number of milliseconds up to {MAX_DELAY_MS}"
        )),
    }
}

fn database_url(value: &str) -> Result<String, String> {
    let known = ["sqlite:", "postgres:", "postgresql:"];
    if !known.iter().any(|scheme| value.starts_with(scheme)) {
        return Err("must begin with sqlite: or postgres:".to_owned());
    }
    if value.starts_with("sqlite:") && (value.contains(":memory:") || value.contains("mode=memory")) {
        // Every connection of the pool would get a database of its own.
        return Err("needs a file, such as sqlite://shipping.db?mode=rwc; not a database in memory".to_owned());
    }
    Ok(value.to_owned())
}
