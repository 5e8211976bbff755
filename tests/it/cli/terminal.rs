//! What a person sees: the bar of a long scan, and the question before a change.
//!
//! Owns the terminal: a pseudo-terminal, whose other end the test reads and types into.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use idem_core::{Backend, Completion};
use idem_tests::in_time;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::process::{Child, Command};

use super::Store;
use super::records::{complete, named, payment};

/// More than one page of a scan.
const RECORDS: u64 = 3_000;

/// The end of a terminal that a person sits at.
struct Terminal {
    ours: File,
    shown: String,
}

impl Terminal {
    /// Starts the command on a terminal of its own.
    fn start(command: &mut Command) -> (Self, Child) {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).expect("it is ours");
        unlockpt(&ours).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.to_bytes()))
            .expect("it is unlocked");
        let another = || theirs.try_clone().expect("a descriptor");
        let command = command.stdin(another()).stdout(another()).stderr(another());
        let child = command.env("TERM", "xterm").spawn().expect("the command starts");
        // So that no end is left here that would keep the terminal open.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let (ours, shown) = (ours.into(), String::new());
        (Self { ours, shown }, child)
    }

    /// Reads until this text is shown, or the command has closed the terminal.
    async fn read_until(&mut self, text: &'static str) {
        let mut ours = self.ours.try_clone().expect("a descriptor");
        let mut shown = std::mem::take(&mut self.shown);
        let reading = tokio::task::spawn_blocking(move || {
            let mut some = [0; 4_096];
            while !shown.contains(text) {
                // A terminal that is closed at the other end is an error.
                match ours.read(&mut some) {
                    Ok(len @ 1..) => shown.push_str(&String::from_utf8_lossy(&some[..len])),
                    _ => break,
                }
            }
            shown
        });
        self.shown = reading.await.expect("no panic");
    }

    fn type_in(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("the terminal is open");
    }
}

/// A text that no command shows.
const END: &str = "\u{0}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_scan_has_a_bar_that_is_gone_at_its_end() {
    in_time(async {
        let redis = Store::redis().await;
        let postgres = Store::postgres().await;
        let sqlite = Store::sqlite().await;
        for number in 0..RECORDS {
            let key = payment(&format!("k-{number}"));
            complete(&redis.backend, &key, 1, Completion::NotStored).await;
        }
        for number in 0..RECORDS / 4 {
            let key = payment(&format!("k-{number}"));
            complete(&postgres.backend, &key, 1, Completion::NotStored).await;
            complete(&sqlite.backend, &key, 1, Completion::NotStored).await;
        }
        // SQLite cannot tell how much of a scan is done.
        let percent = " % ";
        check_bar(&mut redis.command(&["stats"]), &[percent, " looked at, "], RECORDS).await;
        check_bar(
            &mut postgres.command(&["stats"]),
            &[percent, " looked at, "],
            RECORDS / 4,
        )
        .await;
        check_bar(&mut sqlite.command(&["stats"]), &[" looked at, "], RECORDS / 4).await;
    })
    .await;
}

async fn check_bar(command: &mut Command, parts: &[&str], records: u64) {
    let (mut terminal, mut child) = Terminal::start(command);
    terminal.read_until(END).await;
    assert!(child.wait().await.expect("it ends").success(), "{}", terminal.shown);
    let shown = &terminal.shown;
    for part in parts {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    // What takes a bar away, and then the result.
    let bar = shown.rfind(" looked at, ").expect("a bar");
    let (after, result) = (&shown[bar..], format!("{records} records"));
    assert!(after.contains("\u{1b}[2K") && after.contains(&result), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_shown_the_record_and_asked() {
    in_time(async {
        let store = Store::sqlite().await;
        complete(&store.backend, &payment("k"), 1, Completion::Unknown).await;
        let record = named("k");
        for (answer, code) in [("n\r", 2), ("\r", 2), ("y\r", 0)] {
            assert!(store.backend.read(&payment("k")).await.expect("a file").is_some());
            let mut command = store.command(&["forget", &record, "--reason", "ticket 4711"]);
            let (mut terminal, mut child) = Terminal::start(&mut command);
            terminal.read_until("[y/N] ").await;
            let shown = &terminal.shown;
            assert!(
                shown.contains(&record) && shown.contains("forget this record?"),
                "{shown:?}"
            );
            terminal.type_in(answer);
            terminal.read_until(END).await;
            let status = child.wait().await.expect("it ends");
            assert_eq!(status.code(), Some(code), "{}", terminal.shown);
        }
        assert!(store.backend.read(&payment("k")).await.expect("a file").is_none());
    })
    .await;
}
