//! From a URL to the records.
//!
//! Owns which backend a URL names. It creates nothing: a file or a table that is not there is an error. A password in the URL is never
//! shown.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use idem_core::inspect::Operator;
use idem_core::{Backend, BackendError};
use idem_postgres::PostgresBackend;
use idem_redis::RedisBackend;
use idem_sqlite::SqliteBackend;
use idem_sqlite::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::args::Common;
use crate::exit::Failure;

/// The operator of the records that the command line names.
pub(crate) fn connect(common: &Common) -> Result<Operator, Failure> {
    let Some(url) = &common.url else {
        return Err(Failure::usage("say where the records are, by --url or in IDEM_URL"));
    };
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        "redis" | "rediss" | "valkey" | "valkeys" => redis(url, common),
        _ if scheme.starts_with("redis+") || scheme.starts_with("rediss+") => redis(url, common),
        _ if scheme.starts_with("valkey+") || scheme.starts_with("valkeys+") => redis(url, common),
        "postgres" | "postgresql" => postgres(url, common),
        "sqlite" => sqlite(path_of(url), common),
        _ if Path::new(url).exists() => sqlite(url, common),
        _ => Err(Failure::usage(
            "the URL begins with redis:, rediss:, redis+cluster:, redis+sentinel:, redis+unix:, postgres: or sqlite:, or is the path of \
             a file that is there",
        )),
    }
}

/// The path in `sqlite:path`, `sqlite:///path` or `sqlite:////path`.
fn path_of(url: &str) -> &str {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    // Some clients write a slash more before an absolute path.
    path.strip_prefix('/')
        .filter(|path| path.starts_with('/'))
        .unwrap_or(path)
}

/// Whether a cursor of the store has a record key in it. A list of SQLite goes on after a key.
pub(crate) fn has_keys_in_cursors(common: &Common) -> bool {
    let scheme = common.url.as_ref().and_then(|url| url.split_once(':'));
    let others = ["redis", "valkey", "postgres"];
    !scheme.is_some_and(|(scheme, _)| others.iter().any(|other| scheme.starts_with(other)))
}

fn redis(url: &str, common: &Common) -> Result<Operator, Failure> {
    refuse(
        &[
            ("--table", common.table.is_some()),
            ("--schema", common.schema.is_some()),
        ],
        "Redis",
    )?;
    // If another provider is installed already, that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut backend = RedisBackend::lazy(url).map_err(|error| unfit(&error))?;
    if let Some(prefix) = &common.prefix {
        check_name("prefix", prefix, "-_.:", usize::MAX)?;
        backend = backend.with_prefix(prefix);
    }
    operator(backend, common)
}

fn postgres(url: &str, common: &Common) -> Result<Operator, Failure> {
    refuse(&[("--prefix", common.prefix.is_some())], "Postgres")?;
    let mut backend = PostgresBackend::lazy(url).map_err(|error| unfit(&error))?;
    if let Some(schema) = &common.schema {
        check_name("schema", schema, "_", 31)?;
        backend = backend.with_schema(schema);
    }
    if let Some(table) = &common.table {
        check_name("table", table, "_", 31)?;
        backend = backend.with_table(table);
    }
    operator(backend, common)
}

/// The error says what is wrong, without a password.
fn unfit(error: &BackendError) -> Failure {
    Failure::usage("the URL cannot be used").because(error)
}

fn sqlite(path: &str, common: &Common) -> Result<Operator, Failure> {
    let others = [
        ("--prefix", common.prefix.is_some()),
        ("--schema", common.schema.is_some()),
    ];
    refuse(&others, "SQLite")?;
    if !Path::new(path).is_file() && path.contains('?') {
        return Err(Failure::usage(
            "parameters of a SQLite URL are not read; name the file alone",
        ));
    }
    if !Path::new(path).is_file() {
        return Err(Failure::usage(format!("there is no file {}", without_password(path))));
    }
    check_log(path)?;
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    let mut backend = SqliteBackend::new(pool);
    if let Some(table) = &common.table {
        check_name("table", table, "_", 31)?;
        backend = backend.with_table(table);
    }
    operator(backend, common)
}

/// Fails if the file is not a database with a write-ahead log. The backend would give it one, and a command that shows records must not
/// change the file of another application.
fn check_log(path: &str) -> Result<(), Failure> {
    let shown = without_password(path);
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        // The versions that a program needs to write and to read the file: 2 is that of a log. https://sqlite.org/fileformat.html
        Ok(()) if header.starts_with(b"SQLite format 3\0") && header[18..] == [2, 2] => Ok(()),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            Err(Failure::usage(format!("{shown} cannot be read")).because(&error))
        }
        _ => Err(Failure::usage(format!(
            "{shown} is not a database of SQLite with a write-ahead log, so no application keeps its records there"
        ))),
    }
}

/// The path as it is shown. In the place of a path there may be the URL of another store.
fn without_password(path: &str) -> &str {
    let path = path.rsplit('@').next().unwrap_or_default();
    path.split('?').next().unwrap_or_default()
}

fn operator(backend: impl Backend, common: &Common) -> Result<Operator, Failure> {
    let name = common.name.clone().unwrap_or_else(who);
    match Operator::new(backend, name) {
        Some(operator) => Ok(operator),
        None => Err(Failure::new("this backend cannot be inspected")),
    }
}

/// The user and the machine.
fn who() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let owner = idem_core::Owner::this_process();
    let host = owner.as_str().rsplit_once(':').map_or("", |(host, _process)| host);
    format!("{}@{host}", user.unwrap_or_else(|| "unknown".to_owned()))
}

fn refuse(options: &[(&str, bool)], backend: &str) -> Result<(), Failure> {
    match options.iter().find(|(_, is_set)| *is_set) {
        Some((option, _)) => Err(Failure::usage(format!("{option} does not go with {backend}"))),
        None => Ok(()),
    }
}

/// The backends panic on a name that cannot be one, because an application writes it down once.
fn check_name(what: &str, name: &str, others: &str, longest: usize) -> Result<(), Failure> {
    let is_fit = |character: char| character.is_ascii_alphanumeric() || others.contains(character);
    if !name.is_empty() && name.len() <= longest && name.chars().all(is_fit) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "a {what} is made of ASCII letters, digits and {others:?}, and is not too long"
    )))
}
