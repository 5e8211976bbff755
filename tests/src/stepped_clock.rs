//! The time of day of single processes, stepped while they run.
//!
//! Owns where libfaketime is, and the file that tells it the step. The boot clock and the monotonic clock are left alone.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The library for processes with several threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// The time of day that the processes of one [`Program`](crate::Program) read.
#[derive(Debug)]
pub struct SteppedClock {
    folder: TempDir,
    library: PathBuf,
}

impl SteppedClock {
    /// A clock that is right. `None` where the system is not Linux.
    pub fn new() -> Option<Self> {
        if cfg!(not(target_os = "linux")) {
            return None;
        }
        let library = library().expect("libfaketime is installed by `cargo xtask setup`");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Self { folder, library };
        clock.step(0);
        Some(clock)
    }

    /// Sets it so many seconds ahead of the right time, or behind it.
    pub fn step(&self, seconds: i64) {
        let (file, next) = (self.file(), self.folder.path().join("next"));
        // In one go: a process reads the file each time it asks for the time.
        fs::write(&next, format!("{seconds:+}\n")).expect("a folder of ours");
        fs::rename(next, file).expect("a folder of ours");
    }

    /// What a process needs in its environment to go by this clock.
    pub(crate) fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("step")
    }
}

/// Where the packages of Debian, of Fedora, and of Arch and Alpine have it.
fn library() -> Option<PathBuf> {
    let of_platforms = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders = of_platforms.map(|platform| platform.path().join("faketime"));
    let others = ["/usr/lib64/faketime", "/usr/lib/faketime"].map(|folder| Path::new(folder).to_owned());
    let mut found = folders.chain(others).map(|folder| folder.join(LIBRARY));
    found.find(|library| library.is_file())
}
