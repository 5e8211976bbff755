//! How far a scan has come, on the terminal.
//!
//! Owns the bar, and that no other output runs into it: each output ends the bar first, and the next page of the scan draws a new one.
//! Does not own how far the scan has come: the store says so.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use idem_core::inspect::Page;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// How far a scan has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanned {
    /// Records that the store has looked at.
    pub(crate) looked_at: u64,
    /// Records that the store has returned.
    pub(crate) found: u64,
    /// Commands or statements that were sent.
    pub(crate) commands: u64,
    /// How much of the scan is done; `None` if the store cannot tell.
    percent: Option<u8>,
}

impl Scanned {
    pub(crate) fn add(&mut self, page: &Page) {
        self.looked_at += page.looked_at;
        self.found += page.records.len() as u64;
        self.commands += page.commands;
        // A table of Redis that changes its size meanwhile can take the percentage a little back.
        self.percent = page.percent.map(|percent| percent.max(self.percent.unwrap_or(0)));
    }
}

/// The bar of a scan, if standard error is a terminal. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    is_on_terminal: bool,
    bar: Arc<Mutex<Option<ProgressBar>>>,
}

impl Progress {
    pub(crate) fn on_stderr() -> Self {
        Self {
            is_on_terminal: io::stderr().is_terminal(),
            bar: Arc::default(),
        }
    }

    /// Draws the bar, as far as the scan has come.
    pub(crate) fn show(&self, scanned: &Scanned) {
        if !self.is_on_terminal {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| new_bar(scanned.percent.is_some()));
        bar.set_message(format!("{} looked at, {} found", scanned.looked_at, scanned.found));
        bar.set_position(scanned.percent.unwrap_or(0).into());
        bar.tick();
    }

    /// Removes the bar, so that something else can be printed.
    pub(crate) fn end(&self) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar; or a spinner, if the store cannot tell how much there is.
fn new_bar(is_percent_known: bool) -> ProgressBar {
    let template = if is_percent_known {
        "{bar:30} {percent:>3} %  {wide_msg}"
    } else {
        "{spinner} {wide_msg}"
    };
    // Both templates can be parsed, so the other style is never used.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
    bar.with_style(style)
}

/// Standard error for log lines. A log line ends the bar.
impl<'a> MakeWriter<'a> for Progress {
    type Writer = io::Stderr;

    fn make_writer(&'a self) -> Self::Writer {
        self.end();
        io::stderr()
    }
}
