//! How the story looks: aligned, and in colour where a terminal shows it.
//!
//! Owns columns and colours. What is said, and whether it is true, is the story's.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Good,
    Bad,
}

impl Tone {
    /// As terminals are told of it.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Strong => "1",
            Self::Good => "32",
            Self::Bad => "31",
        }
    }
}

#[derive(Debug)]
pub(super) struct Printer {
    coloured: bool,
}

impl Printer {
    /// Colours if stdout is a terminal and `NO_COLOR` is not set.
    pub(super) fn stdout() -> Self {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { coloured }
    }

    pub(super) fn title(&self, records: &str, delay: Duration) {
        let millis = delay.as_millis();
        self.print(
            &format!("Shipping, and what retries do to it (an order takes {millis} ms; records {records})"),
            Tone::Strong,
        );
    }

    pub(super) fn cast(&self, text: &str) {
        self.print(text, Tone::Plain);
    }

    pub(super) fn act(&self, number: usize, path: &str, plot: &str) {
        self.blank();
        self.print(&format!("{number}  POST {path:<22} {plot}"), Tone::Strong);
    }

    pub(super) fn line(&self, label: &str, mark: &str, text: &str, tone: Tone) {
        self.print(&format!("   {label:<13} {mark:>3}  {text}"), tone);
    }

    /// One of the two lines it all comes down to.
    pub(super) fn verdict(&self, route: &str, text: &str, tone: Tone) {
        self.print(&format!("{route:<11} {text}"), tone);
    }

    pub(super) fn blank(&self) {
        self.print("", Tone::Plain);
    }

    /// A reader who has left, as in `shipping demo | head`, is no failure of the story.
    fn print(&self, line: &str, tone: Tone) {
        let mut out = io::stdout();
        let _ = if self.coloured && tone != Tone::Plain {
            writeln!(out, "\x1b[{}m{line}\x1b[0m", tone.code())
        } else {
            writeln!(out, "{}", line.trim_end())
        };
    }
}
