#![doc = include_str!("../README.md")]
//!
//! The modules, in the order in which a command goes through them:
//!
//! | module | owns |
//! |---|---|
//! | `args` | the command line |
//! | `connect` | from a URL to the records |
//! | `find` | which record a command is about |
//! | `list`, `show`, `why`, `settle`, `scope`, `watch`, `stats`, `doctor` | one command, or several alike |
//! | `request` | a request from a file or from the words of `curl` |
//! | `view` | a record as it is printed, for people and for programs |
//! | `output` | the terminal: tables, colours, text that cannot do harm |
//! | `progress` | the bar of a scan |
//! | `file` | files that the command line names |
//! | `exit` | exit codes |

mod args;
mod connect;
mod doctor;
mod exit;
mod file;
mod find;
mod list;
mod output;
mod progress;
mod request;
mod scope;
mod settle;
mod show;
mod stats;
mod view;
mod watch;
mod why;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use idem_core::inspect::Operator;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::args::{Args, Command, Common};
use self::exit::{Exit, Failure};
use self::output::Output;
use self::progress::Progress;

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the command that `arguments` name. The first argument is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(error) => return explain(&error, &arguments).into(),
    };
    match args.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "idem", &mut script);
            return print(&script).into();
        }
        Command::Man { dir: Some(dir) } => return write_pages(&dir).into(),
        Command::Man { dir: None } => {
            let mut page = Vec::new();
            // Writing to memory does not fail.
            let _ = clap_mangen::Man::new(Args::command()).render(&mut page);
            return print(&page).into();
        }
        _ => {}
    }
    let progress = Progress::on_stderr();
    log(args.common.verbose, progress.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut output = Output::new(&args.common, progress);
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(obey(&args, &mut output)),
        Err(error) => Err(Failure::new("the runtime cannot be started").because(&error)),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.fail(&failure);
            failure.exit().into()
        }
    }
}

/// The crates whose log lines are shown. A line of a driver may have a statement with all of its values in it, or a part of the URL.
const LOGGED: [&str; 6] = [
    "idem_core",
    "idem_http",
    "idem_postgres",
    "idem_redis",
    "idem_sql",
    "idem_sqlite",
];

/// The log lines of the library, on standard error.
fn log(verbose: u8, progress: Progress) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(progress)
        .with_ansi(is_terminal)
        .with_target(false)
        .log_internal_errors(false);
    let ours = Targets::new().with_targets(LOGGED.map(|name| (name, level)));
    // If a subscriber is there already, its lines go where it sends them.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

/// Prints help that was asked for, or what is wrong with the command line. A URL in the wrong place may have a password.
fn explain(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    let text = error.render().to_string();
    let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let values = words
        .iter()
        .flat_map(|word| [Some(&**word), word.split_once('=').map(|(_, value)| value)]);
    let urls: Vec<_> = values.flatten().filter(|value| value.contains("://")).collect();
    // To standard output if it is help. A closed pipe is no failure.
    if exit == Exit::Usage && !urls.is_empty() {
        let text = urls.iter().fold(text, |text, url| text.replace(url, "(a URL)"));
        let _ = write!(std::io::stderr(), "{}", output::harmless_lines(&text));
    } else {
        let _ = error.print();
    }
    exit
}

/// Prints what is whole already. A reader may close the pipe before its end.
fn print(text: &[u8]) -> Exit {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

/// Writes a man page for each command.
fn write_pages(folder: &Path) -> Exit {
    match clap_mangen::generate_to(Args::command(), folder) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let text = format!("idem: the man pages cannot be written: {error}\n");
            let _ = write!(std::io::stderr(), "{}", output::harmless_lines(&text));
            Exit::Failed
        }
    }
}

async fn obey(args: &Args, output: &mut Output) -> Result<Exit, Failure> {
    let operator = operator(&args.common)?;
    match &args.command {
        Command::List(list) => list::list(&operator, list, output).await,
        Command::Show(show) => show::show(&operator, show, output).await,
        Command::Why(why) => why::why(&operator, why, output).await,
        Command::Forget(forget) => settle::forget(&operator, forget, output).await,
        Command::Resolve(resolve) => settle::resolve(&operator, resolve, output).await,
        Command::ForgetScope(forget) => scope::forget_scope(&operator, forget, output).await,
        Command::Watch(watch) => watch::watch(&operator, watch, output).await,
        Command::Stats(stats) => stats::stats(&operator, stats, output).await,
        Command::Doctor(asked) => doctor::doctor(&operator, asked, output).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(Exit::Done),
    }
}

fn operator(common: &Common) -> Result<Operator, Failure> {
    connect::connect(common).map(|operator| operator.with_deadline(common.timeout))
}
