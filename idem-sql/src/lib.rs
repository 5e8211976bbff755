//! What a handler or a task writes, and the record of its outcome, in one transaction of Postgres or SQLite.
//!
//! `idem-axum` and `idem-task` give their users a `Transaction` and `steps.transact(..)` by this crate. It is for authors of other
//! integrations. It knows no HTTP and no broker: whether an answer is committed is its caller's decision.
//!
//! | module | owns | does not own |
//! |---|---|---|
//! | [`database`] | the choice between the databases | what each of them does: its backend |
//! | [`slot`] | where a run's transaction is while neither its work nor its commit has it | who decides about its end |
//! | `beside` | which transactions of one run would wait for each other | |
//! | [`ending`] | the commit with the record, the rollback, and what is known where the database refuses | statements |
//! | [`transact`] | a step whose rows and record are committed together | which steps are recorded: [`idem_core::steps`] |

// Without a database, nothing is left.
#![cfg(feature = "transaction")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod beside;
pub mod database;
pub mod ending;
pub mod slot;
pub mod transact;

pub use sqlx;

pub use self::database::{Begun, Kind, SqlBackend, TransactionConnection, TransactionDatabase};
pub use self::ending::{commit_alone, commit_with_record, roll_back, roll_back_unrecorded};
pub use self::slot::{Left, TransactionSlot};
pub use self::transact::{StepBody, StepTransaction, TransactError};
