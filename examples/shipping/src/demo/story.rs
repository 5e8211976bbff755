//! The six acts, and what must come out of each.
//!
//! Owns the plot and its checks: every line that is told was compared with what it promises. It waits for handlers and
//! answers, never for a guess of how long something takes.

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use super::client::{Answer, Client, Post, Route, RowComes};
use super::print::{Printer, Tone};
use super::second::Second;
use super::{ACME, DemoError, GLOBEX, PATIENCE};

/// What an answer must be.
#[derive(Clone, Copy, Debug)]
struct Expected {
    status: u16,
    code: Option<&'static str>,
    replayed: bool,
}

const CREATED: Expected = Expected {
    status: 201,
    code: None,
    replayed: false,
};
const REPLAYED: Expected = Expected {
    replayed: true,
    ..CREATED
};
const KEY_REUSED: Expected = Expected {
    status: 422,
    code: Some("key-reused"),
    replayed: false,
};
const UNAUTHORIZED: Expected = Expected { status: 401, ..CREATED };

impl Expected {
    fn is_met_by(self, answer: &Answer) -> bool {
        answer.status == self.status && answer.code().as_deref() == self.code && answer.replayed == self.replayed
    }
}

/// What one route was asked, and what became of it.
#[derive(Debug, Default)]
struct Tally {
    orders: usize,
    rows: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, rows } = self;
        let so = if rows == orders {
            "every order shipped once"
        } else {
            "a retry ships again"
        };
        write!(f, "{orders} orders, {rows} rows: {so}")
    }
}

/// What a process of the last act serves.
pub(super) struct Stage {
    pub(super) database_url: String,
    pub(super) row_comes: RowComes,
    pub(super) delay: Duration,
}

pub(super) struct Story {
    /// Sends first calls.
    first: Client,
    /// Sends everything else: to the second process, where there are two.
    others: Client,
    printer: Printer,
    stage: Stage,
    /// Keeps the keys of one run apart from those of another in the same Redis.
    run: u64,
    naive: Tally,
    idempotent: Tally,
    different: usize,
}

impl Story {
    pub(super) fn new(first: Client, others: Client, printer: Printer, stage: Stage) -> Self {
        Self {
            first,
            others,
            printer,
            stage,
            run: rand::random(),
            naive: Tally::default(),
            idempotent: Tally::default(),
            different: 0,
        }
    }

    pub(super) async fn tell(mut self) -> Result<(), DemoError> {
        self.naive_retry().await?;
        self.naive_duplicate().await?;
        self.idempotent_retry().await?;
        let first = self.idempotent_duplicate().await?;
        self.other_requests(&first).await?;
        self.killed_process().await?;
        self.verdict()
    }

    async fn naive_retry(&mut self) -> Result<(), DemoError> {
        let order = self.act(1, Route::Naive, "the client gives up after 500 ms, and retries");
        self.give_up(&order).await?;
        let retry = self.others.post(&order).await?;
        self.line("retry", &retry, CREATED);
        self.rows(&order, 2).await
    }

    async fn naive_duplicate(&mut self) -> Result<(), DemoError> {
        let order = self.act(2, Route::Naive, "a duplicate arrives while the first one runs");
        let first = self.first.start(&order).await?;
        let duplicate = self.others.post(&order).await?;
        self.line("first call", &first.await??, CREATED);
        self.line("duplicate", &duplicate, CREATED);
        self.rows(&order, 2).await
    }

    async fn idempotent_retry(&mut self) -> Result<(), DemoError> {
        let order = self.act(3, Route::Idempotent, "the client gives up after 500 ms, and retries");
        self.give_up(&order).await?;
        let retry = self.others.post(&order).await?;
        self.line("retry", &retry, REPLAYED);
        self.rows(&order, 1).await
    }

    async fn idempotent_duplicate(&mut self) -> Result<Post, DemoError> {
        let order = self.act(4, Route::Idempotent, "a duplicate arrives while the first one runs");
        let running = self.first.start(&order).await?;
        let unanswered = !running.is_finished();
        let text = if unanswered {
            "no answer yet, and here comes the duplicate"
        } else {
            "answered before the duplicate came"
        };
        self.check(unanswered, "first call", "", text, Tone::Plain);
        let duplicate = self.others.post(&order).await?;
        let first = running.await??;
        self.line("first call", &first, CREATED);
        self.line("duplicate", &duplicate, REPLAYED);
        let retry = self.others.post(&order).await?;
        self.line("retry", &retry, REPLAYED);
        let same = [&duplicate, &retry].iter().all(|answer| answer.body == first.body);
        let text = if same {
            "identical, byte by byte"
        } else {
            "not the same bytes"
        };
        self.check(same, "bodies", "", text, Tone::Plain);
        self.rows(&order, 1).await?;
        Ok(order)
    }

    async fn other_requests(&mut self, first: &Post) -> Result<(), DemoError> {
        let globex = Post {
            token: Some(GLOBEX),
            ..first.clone()
        };
        self.printer
            .act(5, Route::Idempotent.path(), "the key of act 4 once more, but…");
        let other_body = Post {
            order_id: format!("{}-b", first.order_id),
            ..first.clone()
        };
        let answer = self.others.post(&other_body).await?;
        self.line("other body", &answer, KEY_REUSED);
        let nobody = Post {
            token: None,
            ..first.clone()
        };
        let answer = self.others.post(&nobody).await?;
        self.line("no token", &answer, UNAUTHORIZED);
        let answer = self.others.post(&globex).await?;
        self.idempotent.orders += 1;
        self.line("other tenant", &answer, CREATED);
        self.rows(&globex, 1).await
    }

    async fn killed_process(&mut self) -> Result<(), DemoError> {
        let plot = "the process is killed in the middle, started again, and the client retries";
        let order = self.act(6, Route::Idempotent, plot);
        let (killed, client) = self.start_process().await?;
        let running = client.start(&order).await?;
        killed.kill().await?;
        let cut_off = matches!(running.await?, Err(DemoError::Http(_)));
        let text = if cut_off {
            format!("no answer: process {} is killed", client.process)
        } else {
            "answered before the process was killed".to_owned()
        };
        self.check(cut_off, "first call", "", &text, Tone::Plain);
        let (started, client) = self.start_process().await?;
        let left = client.rows(&order).await?;
        let (expected, text) = match self.stage.row_comes {
            RowComes::First => (1, "written before the kill; its answer is not recorded"),
            RowComes::WithRecord => (0, "nothing was committed before the kill"),
        };
        self.check(left == expected, "rows", &left.to_string(), text, Tone::Plain);
        let retry = client.post(&order).await?;
        self.line("retry", &retry, CREATED);
        self.rows(&order, 1).await?;
        started.stop().await
    }

    async fn start_process(&self) -> Result<(Second, Client), DemoError> {
        let process = Second::start(&self.stage.database_url).await?;
        let client = Client::new(process.url.clone(), process.id, self.stage.row_comes, self.stage.delay)?;
        Ok((process, client))
    }

    fn act(&mut self, number: usize, route: Route, plot: &str) -> Post {
        self.printer.act(number, route.path(), plot);
        self.tally(route).orders += 1;
        Post {
            route,
            token: Some(ACME),
            key: format!("demo-{:016x}-{number}", self.run),
            order_id: format!("{:016x}-{number}", self.run),
        }
    }

    /// Sends an order and hangs up before it is answered, but not before it has begun.
    async fn give_up(&mut self, order: &Post) -> Result<(), DemoError> {
        let patience = sleep(PATIENCE);
        let running = self.first.start(order).await?;
        patience.await;
        running.abort();
        let gone = running.await.is_err_and(|error| error.is_cancelled());
        let text = if gone {
            "no answer yet, the client hangs up"
        } else {
            "answered before that"
        };
        self.check(gone, "first call", "", text, Tone::Plain);
        Ok(())
    }

    /// Tells how many rows the order has by now.
    async fn rows(&mut self, order: &Post, expected: usize) -> Result<(), DemoError> {
        let rows = self.first.rows(order).await?;
        self.tally(order.route).rows += rows;
        let (text, tone) = match rows {
            1 => ("shipped once", Tone::Good),
            2 => ("shipped twice", Tone::Bad),
            _ => ("", Tone::Bad),
        };
        self.check(rows == expected, "rows", &rows.to_string(), text, tone);
        Ok(())
    }

    /// Tells an answer, and whether it is the one that was promised.
    fn line(&mut self, label: &str, answer: &Answer, expected: Expected) {
        let mut text = answer.code().unwrap_or_else(|| answer.text());
        if answer.replayed {
            text = format!("{text}, Idempotent-Replayed: true");
        }
        let (process, millis) = (answer.process, answer.took.as_millis());
        let text = format!("{text} (process {process}, {millis} ms)");
        let mark = answer.status.to_string();
        self.check(expected.is_met_by(answer), label, &mark, &text, Tone::Plain);
    }

    fn check(&mut self, holds: bool, label: &str, mark: &str, text: &str, tone: Tone) {
        if holds {
            self.printer.line(label, mark, text, tone);
        } else {
            self.different += 1;
            self.printer
                .line(label, mark, &format!("{text}   <- NOT AS TOLD"), Tone::Bad);
        }
    }

    fn verdict(&self) -> Result<(), DemoError> {
        self.printer.blank();
        self.printer.verdict("naive", &self.naive.to_string(), Tone::Bad);
        self.printer
            .verdict("idempotent", &self.idempotent.to_string(), Tone::Good);
        if self.different > 0 {
            return Err(DemoError::Different(self.different));
        }
        Ok(())
    }

    fn tally(&mut self, route: Route) -> &mut Tally {
        match route {
            Route::Naive => &mut self.naive,
            Route::Idempotent => &mut self.idempotent,
        }
    }
}
