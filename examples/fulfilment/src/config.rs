//! From environment variables to the [`Config`] of a consumer process, and back.
//!
//! Owns names, defaults and syntax, and says which variable is at fault. Whether a server answers is found out where the consumer
//! starts. No message repeats a value that may hold a password.

use std::env::{self, VarError};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// An environment variable, for reading it and for `--help`.
#[derive(Debug)]
pub struct Variable {
    /// What it is called.
    pub name: &'static str,
    /// What it is where nothing is set.
    pub default: Option<&'static str>,
    /// What it is for.
    pub meaning: &'static str,
}

/// The program that the demo starts as its broker.
pub const SERVER: Variable = Variable {
    name: "FULFILMENT_NATS_SERVER",
    default: Some("nats-server"),
    meaning: "demo: the program that is the broker",
};
/// Where the records are instead of a file.
pub const REDIS_URL: Variable = Variable {
    name: "REDIS_URL",
    default: None,
    meaning: "redis://user:password@host:port/; keeps the records, which are in a file of SQLite without it",
};
/// How many orders the demo places.
pub const ORDERS: Variable = Variable {
    name: "FULFILMENT_ORDERS",
    default: Some("200"),
    meaning: "demo: how many orders are placed",
};
/// For how long the demo places orders, and kills processes.
pub const SECONDS: Variable = Variable {
    name: "FULFILMENT_SECONDS",
    default: Some("15"),
    meaning: "demo: for how long orders are placed and processes are killed",
};
const NATS_URL: Variable = Variable {
    name: "NATS_URL",
    default: Some("nats://127.0.0.1:4222"),
    meaning: "consume: the broker; it has the streams",
};
const CONSUMER: Variable = Variable {
    name: "FULFILMENT_CONSUMER",
    default: Some("fulfilment"),
    meaning: "consume: the durable consumer of the stream",
};
const CARRIER: Variable = Variable {
    name: "FULFILMENT_CARRIER",
    default: Some("127.0.0.1:4223"),
    meaning: "consume: IP address and port of the carrier",
};
const RECORDS: Variable = Variable {
    name: "FULFILMENT_RECORDS",
    default: Some("fulfilment.db"),
    meaning: "consume: the file of the records",
};
const AT_ONCE: Variable = Variable {
    name: "FULFILMENT_AT_ONCE",
    default: Some("4"),
    meaning: "consume: how many orders a process works on at once",
};
const PACKING: Variable = Variable {
    name: "FULFILMENT_PACKING_MS",
    default: Some("50"),
    meaning: "consume: how long it takes to pack an order",
};
const LEASE: Variable = Variable {
    name: "FULFILMENT_LEASE_MS",
    default: Some("30000"),
    meaning: "consume: how long the claim of a process that died keeps others from its order",
};
const LOSE_ACKS: Variable = Variable {
    name: "FULFILMENT_LOSE_ACKS",
    default: Some("0"),
    meaning: "consume: one of so many deliveries, by chance, is not acknowledged; 0 for none",
};
const RUST_LOG: Variable = Variable {
    name: "RUST_LOG",
    default: Some("error"),
    meaning: "what is logged to stderr",
};

/// All of them, in the order of `--help`.
pub const VARIABLES: [Variable; 13] = [
    ORDERS, SECONDS, SERVER, REDIS_URL, NATS_URL, CONSUMER, CARRIER, RECORDS, AT_ONCE, PACKING, LEASE, LOSE_ACKS,
    RUST_LOG,
];

/// A variable whose value cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct InvalidVariable {
    name: &'static str,
    reason: String,
}

/// Where records are kept.
#[derive(Clone)]
pub enum Records {
    /// In a file of `SQLite`.
    Sqlite(PathBuf),
    /// In the Redis of this URL.
    Redis(String),
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Redis(_) => "Redis",
        })
    }
}

/// What a consumer process is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker.
    pub nats_url: String,
    /// The durable consumer of the stream.
    pub consumer: String,
    /// Where the carrier listens.
    pub carrier: SocketAddr,
    /// Where the records are.
    pub records: Records,
    /// How many orders it works on at once.
    pub at_once: usize,
    /// How long it takes to pack an order.
    pub packing: Duration,
    /// How long the claim of a process that died keeps others from its order.
    pub lease: Duration,
    /// One of so many deliveries, by chance, is not acknowledged; 0 for none.
    pub lose_acks: u64,
}

impl Config {
    /// Reads and checks every variable.
    ///
    /// # Errors
    ///
    /// With the variable at fault.
    pub fn from_env() -> Result<Self, InvalidVariable> {
        let millis = |variable: &Variable| variable.parse().map(Duration::from_millis);
        Ok(Self {
            nats_url: NATS_URL.parse()?,
            consumer: CONSUMER.parse()?,
            carrier: CARRIER.parse()?,
            records: match REDIS_URL.read()? {
                Some(url) => Records::Redis(url),
                None => Records::Sqlite(RECORDS.parse()?),
            },
            at_once: AT_ONCE.parse()?,
            packing: millis(&PACKING)?,
            lease: millis(&LEASE)?,
            lose_acks: LOSE_ACKS.parse()?,
        })
    }

    /// The variables from which another process reads the same.
    #[must_use]
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        let millis = |duration: Duration| duration.as_millis().to_string();
        vec![
            (NATS_URL.name, self.nats_url.clone()),
            (CONSUMER.name, self.consumer.clone()),
            (CARRIER.name, self.carrier.to_string()),
            match &self.records {
                Records::Redis(url) => (REDIS_URL.name, url.clone()),
                Records::Sqlite(file) => (RECORDS.name, file.display().to_string()),
            },
            (AT_ONCE.name, self.at_once.to_string()),
            (PACKING.name, millis(self.packing)),
            (LEASE.name, millis(self.lease)),
            (LOSE_ACKS.name, self.lose_acks.to_string()),
        ]
    }
}

impl Variable {
    /// Its value, or its default.
    ///
    /// # Errors
    ///
    /// If it is not UTF-8.
    pub fn read(&self) -> Result<Option<String>, InvalidVariable> {
        match env::var(self.name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(self.default.map(str::to_owned)),
            Err(VarError::NotUnicode(_)) => Err(self.invalid("is not UTF-8")),
        }
    }

    /// The value of a variable that has a default.
    ///
    /// # Errors
    ///
    /// If it has another form.
    pub fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Result<T, InvalidVariable> {
        let value = self.read()?.unwrap_or_default();
        value.parse().map_err(|error| {
            let example = self.default.unwrap_or_default();
            self.invalid(format!("{error}; write it as in {example}"))
        })
    }

    /// The error of a value that cannot be used.
    #[must_use]
    pub fn invalid(&self, reason: impl Into<String>) -> InvalidVariable {
        let (name, reason) = (self.name, reason.into());
        InvalidVariable { name, reason }
    }
}
