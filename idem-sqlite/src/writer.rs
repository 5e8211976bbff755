//! The connection that writes.
//!
//! SQLite has one writer at a time. So one task takes what has been asked for meanwhile, applies it in one transaction, and
//! answers all of it after one commit: while a commit waits for the disk, the next batch gathers.
//!
//! Owns the order of changes, and what is known after an error. Does not own the meaning of a change for the contract: that is in
//! [`change`](crate::change).
//!
//! | what fails | what is known |
//! |---|---|
//! | the database is locked by another process | nothing was written; tried again for as long as somebody waits for an answer |
//! | the file was deleted or replaced | nothing; it is opened anew |
//! | opening, beginning, or a statement | nothing of the batch was written |
//! | the commit | unknown; a later call by the same owner finds out |
//!
//! A call that is dropped before its batch begins is never made.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use idem_core::BackendError;
use sqlx::SqliteConnection;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::sleep;

use crate::change::Change;
use crate::clock::Clock;
use crate::connecting;
use crate::error::{backend_error, is_busy};
use crate::store::Store;
use crate::table::text;

/// The most changes that are committed together.
const BATCH: usize = 256;

/// The pauses between two tries while another process writes, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// How often a writer whose turn it is not looks for calls that were given up.
const TIDY: Duration = Duration::from_millis(50);

const WRITING: &str = "writing a record";

pub(crate) struct Writer {
    store: Arc<Store>,
    clock: Clock,
    asked: mpsc::UnboundedReceiver<Change>,
    /// What was asked and is not done.
    waiting: VecDeque<Change>,
    connection: Option<SqliteConnection>,
    /// The file that `connection` has opened.
    file: Option<(u64, u64)>,
}

/// Why a batch was not written.
enum NotBegun {
    Busy,
    Failed(BackendError),
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>, clock: Clock, asked: mpsc::UnboundedReceiver<Change>) -> Self {
        Self {
            store,
            clock,
            asked,
            waiting: VecDeque::new(),
            connection: None,
            file: None,
        }
    }

    /// Writes until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        while self.gather().await {
            let _turn = self.turn().await;
            if let Some(connection) = self.begun().await {
                let batch = self.waiting.drain(..self.waiting.len().min(BATCH)).collect();
                self.connection = self.write(connection, batch).await;
            }
        }
    }

    /// Waits until something is asked for. `false`: nobody can ask any more.
    async fn gather(&mut self) -> bool {
        if self.waiting.is_empty() {
            match self.asked.recv().await {
                Some(change) => self.waiting.push_back(change),
                None => return false,
            }
        }
        self.tidy();
        true
    }

    /// Takes what has been asked for, and drops what nobody waits for any more.
    fn tidy(&mut self) {
        while let Ok(change) = self.asked.try_recv() {
            self.waiting.push_back(change);
        }
        self.waiting.retain(|change| !change.is_given_up());
    }

    /// Waits until no transaction of a handler in this process holds the database.
    async fn turn(&mut self) -> OwnedMutexGuard<()> {
        let mut turn = pin!(self.store.turns.clone().lock_owned());
        loop {
            tokio::select! {
                biased;
                turn = &mut turn => return turn,
                () = sleep(TIDY) => {}
            }
            self.tidy();
        }
    }

    /// Begins a transaction; `None` if nobody waits for one any more, or all have been told why there is none.
    async fn begun(&mut self) -> Option<SqliteConnection> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.tidy();
            if self.waiting.is_empty() {
                return None;
            }
            match self.begin().await {
                Ok(connection) => return Some(connection),
                Err(NotBegun::Busy) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(NotBegun::Failed(error)) => {
                    for change in self.waiting.drain(..) {
                        change.fail(&error);
                    }
                    return None;
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<SqliteConnection, NotBegun> {
        let mut connection = match self.opened() {
            Some(connection) => connection,
            None => self.open().await.map_err(NotBegun::Failed)?,
        };
        match sqlx::query(text_of("BEGIN IMMEDIATE")).execute(&mut connection).await {
            Ok(_begun) => Ok(connection),
            Err(error) if is_busy(&error) => {
                self.connection = Some(connection);
                Err(NotBegun::Busy)
            }
            Err(error) => Err(NotBegun::Failed(backend_error(WRITING, error).not_written())),
        }
    }

    /// The open connection, unless the file was deleted or replaced: other processes would not see what is written there.
    fn opened(&mut self) -> Option<SqliteConnection> {
        let connection = self.connection.take()?;
        (self.file == connecting::identity(self.store.options.get_filename())).then_some(connection)
    }

    async fn open(&mut self) -> Result<SqliteConnection, BackendError> {
        let file = connecting::identity(self.store.options.get_filename());
        if self.file != file {
            // Not after each error: closing the last connection to a file empties its log.
            self.store.readers.close();
            self.file = file;
        }
        connecting::writer(&self.store.options).await
    }

    /// Applies a batch, commits it and answers. Returns the connection unless an error has made it useless; closing it rolls back.
    async fn write(&self, mut connection: SqliteConnection, mut batch: Vec<Change>) -> Option<SqliteConnection> {
        let written = self.commit(&mut connection, &mut batch).await;
        for change in batch {
            match &written {
                Ok(()) => {
                    if let Some(key) = change.ended() {
                        self.store.waiters.wake(key);
                    }
                    change.answer();
                }
                Err(error) => change.fail(error),
            }
        }
        written.is_ok().then_some(connection)
    }

    async fn commit(&self, connection: &mut SqliteConnection, batch: &mut [Change]) -> Result<(), BackendError> {
        let statements = &self.store.statements;
        let at = (&self.clock, Clock::now());
        for change in batch {
            let applied = change.apply(connection, statements, at).await;
            applied.map_err(|error| backend_error(WRITING, error).not_written())?;
        }
        let committed = sqlx::query(text_of("COMMIT")).execute(connection).await;
        // Whether the log has the commit is unknown: its last page may have been written before the error.
        committed.map(drop).map_err(|error| backend_error(WRITING, error))
    }
}

fn text_of(sql: &str) -> sqlx::SqlStr {
    text(sql.to_owned())
}
