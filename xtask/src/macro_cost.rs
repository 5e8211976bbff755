//! What the attribute costs those who compile it: a hundred annotated handlers against the same hundred bare.
//!
//! Owns the crates it generates below `target/macro-cost`, and how they are timed. Their dependencies are compiled
//! before anything is: what is timed is a user's own crate.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::commands::run;
use crate::manifests::workspace;

const HANDLERS: usize = 100;
/// The median of so many is taken. A release build takes long and varies little, so it is timed once.
const RUNS: usize = 3;

/// A generated crate.
struct Sample {
    name: &'static str,
    attribute: &'static str,
    handlers: usize,
}

const ANNOTATED: &str = "#[idem_axum::idempotent(ttl = \"24h\", scope = tenant)]\n";

const SAMPLES: [Sample; 4] = [
    Sample {
        name: "bare",
        attribute: "",
        handlers: HANDLERS,
    },
    Sample {
        name: "annotated",
        attribute: ANNOTATED,
        handlers: HANDLERS,
    },
    Sample {
        name: "bare-one",
        attribute: "",
        handlers: 1,
    },
    Sample {
        name: "annotated-one",
        attribute: ANNOTATED,
        handlers: 1,
    },
];

/// Generates the crates, times them, and prints a table.
pub(crate) fn measure() -> Result<(), String> {
    for sample in &SAMPLES {
        sample.write().map_err(|error| format!("{}: {error}", sample.name))?;
        sample.cargo(&["check"])?;
        sample.cargo(&["build", "--release"])?;
    }
    let [bare, annotated, bare_one, annotated_one] = &SAMPLES;
    println!("| of {HANDLERS} handlers | bare | annotated | ratio |\n|---|---|---|---|");
    for (what, timed) in [
        ("`cargo check`, cold", Sample::cold_check as fn(&Sample) -> _),
        ("`cargo check`, one handler changed", Sample::incremental_check),
        ("`cargo build --release`, cold", Sample::release_build),
    ] {
        let (bare, annotated) = (timed(bare)?.as_secs_f64(), timed(annotated)?.as_secs_f64());
        println!("| {what} | {bare:.2} s | {annotated:.2} s | {:.2} |", annotated / bare);
    }
    let (all_bare, all_annotated) = (bare.code()?, annotated.code()?);
    let kib = |bytes: u64| bytes / 1024;
    let ratio = (all_annotated * 100).div_ceil(all_bare);
    println!(
        "| machine code | {} KiB | {} KiB | {}.{:02} |",
        kib(all_bare),
        kib(all_annotated),
        ratio / 100,
        ratio % 100
    );
    let others = HANDLERS as u64 - 1;
    let own_bare = all_bare.saturating_sub(bare_one.code()?) / others;
    let own_annotated = all_annotated.saturating_sub(annotated_one.code()?) / others;
    let ratio = (own_annotated * 100).div_ceil(own_bare.max(1));
    println!(
        "| of it, each further handler | {own_bare} B | {own_annotated} B | {}.{:02} |",
        ratio / 100,
        ratio % 100
    );
    Ok(())
}

fn root() -> PathBuf {
    workspace().join("target/macro-cost")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Sample {
    fn folder(&self) -> PathBuf {
        root().join(self.name)
    }

    fn write(&self) -> std::io::Result<()> {
        let folder = self.folder();
        fs::create_dir_all(folder.join("src"))?;
        let library = workspace().canonicalize()?.join("idem-axum");
        let manifest = format!(
            "[package]\nname = \"{}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
             axum = {{ version = \"0.8\", features = [\"json\"] }}\n\
             idem-axum = {{ path = '{}', default-features = false, features = [\"macros\"] }}\n\
             serde = {{ version = \"1\", features = [\"derive\"] }}\n\
             tokio = {{ version = \"1\", features = [\"macros\", \"net\", \"rt-multi-thread\"] }}\n\n\
             [profile.release]\nstrip = true\n",
            self.name,
            library.display()
        );
        fs::write(folder.join("Cargo.toml"), manifest)?;
        fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock"))?;
        fs::write(folder.join("src/main.rs"), self.program(0))
    }

    /// The crate's only file; another `change` is another body of one handler.
    fn program(&self, change: usize) -> String {
        let mut handlers = String::new();
        let mut routes = String::new();
        for index in 0..self.handlers {
            let added = if index == 0 { change } else { index };
            let _infallible = write!(
                handlers,
                "{}async fn place_order_{index}(State(db): State<Db>, Path(tenant): Path<String>, Json(order): \
                 Json<NewOrder>) -> Result<(StatusCode, Json<Receipt>), StatusCode> {{\n    \
                 let total = order.amount.checked_add({added}).ok_or(StatusCode::BAD_REQUEST)?;\n    \
                 let shipped = format!(\"{{}} to {{tenant}}\", order.item);\n    \
                 db.send(shipped.clone()).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;\n    \
                 Ok((StatusCode::CREATED, Json(Receipt {{ shipped, total }})))\n}}\n\n",
                self.attribute
            );
            let _infallible = writeln!(
                routes,
                "        .route(\"/{{tenant}}/{index}\", axum::routing::post(place_order_{index}))"
            );
        }
        let layer = if self.attribute.is_empty() {
            ""
        } else {
            "        .layer(idem_axum::Idempotency::new(idem_axum::MemoryBackend::new()))\n"
        };
        format!(
            "use axum::Json;\nuse axum::extract::{{Path, State}};\nuse axum::http::StatusCode;\n\n\
             type Db = tokio::sync::mpsc::Sender<String>;\n\n\
             #[derive(serde::Deserialize)]\nstruct NewOrder {{\n    item: String,\n    amount: usize,\n}}\n\n\
             #[derive(serde::Serialize)]\nstruct Receipt {{\n    shipped: String,\n    total: usize,\n}}\n\n\
             {handlers}\
             #[tokio::main]\nasync fn main() -> std::io::Result<()> {{\n    \
             let (db, _orders) = tokio::sync::mpsc::channel(1);\n    \
             let app = axum::Router::new()\n{routes}{layer}        .with_state(db);\n    \
             axum::serve(tokio::net::TcpListener::bind(\"127.0.0.1:0\").await?, app).await\n}}\n"
        )
    }

    fn cargo(&self, arguments: &[&str]) -> Result<Duration, String> {
        let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).arg("--quiet").current_dir(self.folder());
        command.env("CARGO_TARGET_DIR", root().join("target"));
        let began = Instant::now();
        run(&mut command)?;
        Ok(began.elapsed())
    }

    fn cold_check(&self) -> Result<Duration, String> {
        let times = (0..RUNS).map(|_| {
            self.cargo(&["clean", "--package", self.name])?;
            self.cargo(&["check"])
        });
        times.collect::<Result<_, _>>().map(median)
    }

    fn incremental_check(&self) -> Result<Duration, String> {
        let times = (1..=RUNS).map(|change| {
            fs::write(self.folder().join("src/main.rs"), self.program(change))
                .map_err(|error| format!("{}: {error}", self.name))?;
            self.cargo(&["check"])
        });
        times.collect::<Result<_, _>>().map(median)
    }

    fn release_build(&self) -> Result<Duration, String> {
        self.cargo(&["clean", "--release", "--package", self.name])?;
        self.cargo(&["build", "--release"])
    }

    /// The size of the stripped program.
    fn code(&self) -> Result<u64, String> {
        let program = root()
            .join("target/release")
            .join(self.name)
            .with_extension(env::consts::EXE_EXTENSION);
        fs::metadata(&program)
            .map(|metadata| metadata.len())
            .map_err(|error| format!("{}: {error}", program.display()))
    }
}
