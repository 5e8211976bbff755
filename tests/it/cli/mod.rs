//! The command `idem`, run as a process against real servers and files.
//!
//! Owns how the command is run, and the stores that it looks at. Does not own what a store answers: the conformance kit.
//!
//! | module | owns |
//! |---|---|
//! | `records` | a store with a record in each state |
//! | `golden` | the output of every command |
//! | `mistakes` | command lines that must not have their way |
//! | `normal` | what of an output varies from run to run |
//! | `exits` | the exit codes |
//! | `schema` | the JSON of every command, against `docs/cli.schema.json` |
//! | `secrets` | what no command prints |
//! | `passwords` | that no password of a URL is printed |
//! | `settling` | changes: fenced, refused, forced, and what waiting requests learn |
//! | `reading` | odd records, stores that fail, requests as people have them |
//! | `terminal` | what a person sees: the bar, the question |
//! | `paging` | lists that go on in another process, and closed pipes |

mod exits;
mod golden;
mod mistakes;
mod normal;
mod paging;
mod passwords;
mod reading;
mod records;
mod schema;
mod secrets;
mod settling;
mod terminal;

use std::process::Stdio;

use idem_axum::{PostgresBackend, RedisBackend, SqliteBackend};
use idem_core::Backend;
use idem_core::steps::StepBackend;
use idem_tests::{PostgresServer, RedisServer, SqliteFile, in_time};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// What a command has printed, and its exit code.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Both streams.
    fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    /// The JSON values, one a line.
    fn json(&self) -> Vec<serde_json::Value> {
        let value = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.out.lines().map(value).collect()
    }

    /// The same, if the exit code is this one.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// Where the records are.
enum Place {
    Redis(RedisServer),
    Sqlite(SqliteFile),
    Postgres(std::sync::Arc<PostgresServer>, String),
}

/// A watch that runs, the lines that it has not printed yet, and what it has said first.
struct Watching {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
    note: String,
}

/// A store and its address.
struct Store<B> {
    place: Place,
    backend: B,
}

impl Store<RedisBackend> {
    async fn redis() -> Self {
        let server = RedisServer::start().await;
        let backend = RedisBackend::connect(&server.url()).await.expect("the server answers");
        let place = Place::Redis(server);
        Self { place, backend }
    }

    fn server(&mut self) -> &mut RedisServer {
        match &mut self.place {
            Place::Redis(server) => server,
            _ => unreachable!("it was started on Redis"),
        }
    }
}

impl Store<SqliteBackend> {
    async fn sqlite() -> Self {
        let file = SqliteFile::create().await;
        let backend = file.backend().await;
        let place = Place::Sqlite(file);
        Self { place, backend }
    }
}

impl Store<PostgresBackend> {
    async fn postgres() -> Self {
        let server = PostgresServer::shared().await;
        let (backend, schema) = server.backend().await;
        let place = Place::Postgres(server, schema);
        Self { place, backend }
    }

    fn server(&self) -> (&PostgresServer, &str) {
        match &self.place {
            Place::Postgres(server, schema) => (server, schema),
            _ => unreachable!("it was started on Postgres"),
        }
    }
}

impl<B: Backend + StepBackend> Store<B> {
    /// The command on this store.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.place {
            Place::Redis(server) => on(&server.url(), arguments),
            Place::Sqlite(file) => on(&file.url(), arguments),
            Place::Postgres(server, _) => on(&server.url(), arguments),
        };
        if let Place::Postgres(_, schema) = &self.place {
            command.env("IDEM_SCHEMA", schema);
        }
        command
    }

    /// Starts a watch that has looked once. Both lines go on with what it prints next.
    async fn watching(&self, arguments: &[&str]) -> Watching {
        let mut command = self.command(&[&["watch", "--every", "10ms"], arguments].concat());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut err = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let note = err.next_line().await.expect("it runs").expect("a line");
        Watching { child, out, err, note }
    }

    async fn idem(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments), "").await
    }

    /// The same with this text on standard input.
    async fn idem_told(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.command(arguments), input).await
    }
}

/// The command on the store at `url`, without anything of the environment that changes what it prints.
fn on(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idem-under-test"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("COLUMNS", "100");
    command.env("IDEM_URL", url).env("IDEM_OPERATOR", "ada@desk");
    command.args(arguments).kill_on_drop(true);
    command
}

async fn run(mut command: Command, input: &str) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that reads nothing may be gone.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = in_time(child.wait_with_output()).await.expect("the command ends");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    Ran {
        code: output.status.code().expect("no signal has ended it"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
