//! The incidents of `docs/operating.md`, each brought about by requests to a real service, and settled by the commands on the page.
//!
//! Owns the page's commands: the tests run them as they are written. Does not own the service: [`service`].

mod incidents;
mod service;
mod stores;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use idem_tests::RedisServer;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const PAGE: &str = include_str!("../../../docs/operating.md");

/// The blocks of commands of each incident, by its number.
fn blocks() -> BTreeMap<u32, Vec<String>> {
    let mut blocks: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let (mut incident, mut block) = (None, None::<String>);
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            incident = title.split('.').next().and_then(|number| number.parse().ok());
        }
        match (&mut block, line) {
            (None, "```bash") => block = Some(String::new()),
            (Some(text), "```") => {
                let text = std::mem::take(text);
                block = None;
                if let Some(incident) = incident {
                    blocks.entry(incident).or_default().push(text);
                }
            }
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

/// The terminal of the on-call engineer: a folder, a shell, and the command `idem`.
struct Desk {
    url: String,
    folder: TempDir,
    blocks: std::vec::IntoIter<String>,
    version: String,
}

impl Desk {
    fn new(server: &RedisServer, incident: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let idem = folder.path().join("idem");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_idem-under-test"), idem).expect("a link");
        Self {
            url: server.url(),
            folder,
            blocks: blocks()
                .remove(&incident)
                .expect("the page has this incident")
                .into_iter(),
            version: String::new(),
        }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the next block of the page, which ends with this exit code; what it prints.
    async fn run(&mut self, exit: i32) -> String {
        let block = self.blocks.next().expect("the page has another block");
        // What a test brings about is never ten minutes old.
        let block = block.replace("--older-than 10m", "--older-than 0s");
        let ended = self.shell(&block).await;
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
        let noted = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(exit), "{block}\n{printed}\n{noted}");
        let version = |line: &str| {
            let of_record = line.strip_prefix("version ").map(str::trim);
            let of_unreadable = line
                .strip_prefix("its version is ")
                .and_then(|rest| rest.split(';').next());
            of_record.or(of_unreadable).map(str::to_owned)
        };
        if let Some(version) = printed.lines().chain(noted.lines()).find_map(version) {
            self.version = version;
        }
        printed + &noted
    }

    async fn shell(&self, text: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        shell
            .args(["-e", "-u", "-c", text])
            .current_dir(self.folder())
            .env("PATH", format!("{}:{path}", self.folder().display()))
            .env("IDEM_URL", &self.url)
            .env("IDEM_OPERATOR", "ada")
            .env("VERSION", &self.version)
            .env_remove("RUST_LOG")
            .kill_on_drop(true);
        shell.output().await.expect("a shell")
    }

    /// Everything on the page was run.
    fn end(self) {
        assert_eq!(self.blocks.len(), 0, "the page has more commands");
    }
}

#[test]
fn the_page_has_thirteen_incidents_and_each_has_commands() {
    let blocks = blocks();
    assert_eq!(blocks.keys().copied().collect::<Vec<_>>(), (1..=13).collect::<Vec<_>>());
    for (incident, blocks) in blocks {
        assert!(blocks.iter().all(|block| block.contains("idem ")), "{incident}");
    }
}

/// The member of a JSON document that a command has printed.
fn member(printed: &str, name: &str) -> Value {
    let line = printed.lines().find(|line| line.starts_with('{')).expect("JSON");
    let document: Value = serde_json::from_str(line).expect("JSON");
    document[name].clone()
}
