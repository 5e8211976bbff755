//! Kills a process after the n-th time that it has written to a file or asked for its bytes to be on the disk.
//!
//! Between two of these calls a process does nothing that survives it. `strace` holds each thread back after each of them, so that
//! the kill comes before the next one.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The calls by which SQLite changes files.
const CALLS: [&str; 5] = ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink"];

/// How long a thread is held back, in microseconds: far longer than the kill takes to come.
const HELD_BACK: u32 = 20_000;

/// A running `strace`, which lets go of the process when it is dropped.
#[derive(Debug)]
pub struct Strace {
    _child: Child,
}

impl Strace {
    /// Kills `process` after `number` calls from now on.
    pub async fn kill_after(number: usize, process: u32) -> Self {
        let calls = CALLS.join(",");
        let mut child = Command::new("strace")
            .args(["-f", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:delay_exit={HELD_BACK}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`cargo xtask setup` installs strace");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let attached = loop {
            let line = lines.next_line().await.expect("it is open");
            let line = line.expect("strace says that it is attached, or why it cannot be");
            if line.contains(" attached") {
                break line;
            }
        };
        assert!(attached.contains(&process.to_string()), "{attached}");
        tokio::spawn(async move {
            let mut left = number;
            // Read to its end, so that the pipe does not fill up.
            while let Ok(Some(line)) = lines.next_line().await {
                if CALLS.iter().any(|call| line.contains(&format!("{call}("))) {
                    left = left.saturating_sub(1);
                    if left == 0 {
                        // It is gone either way.
                        let _ = Command::new("kill")
                            .args(["-KILL", &process.to_string()])
                            .status()
                            .await;
                    }
                }
            }
        });
        Self { _child: child }
    }
}
