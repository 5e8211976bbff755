//! The checks of the tables.
//!
//! Owns what must be there: columns, keys, indexes and permissions. They are looked up in the catalog, which every role may read.

use idem_core::BackendError;
use idem_core::inspect::{Finding, Health, Inspect as _, Listed, Selection};

use super::{Checked, checked, column, row, with_cause};
use crate::{PostgresBackend, migrations};

/// How many records are read, to find some that cannot be.
const SAMPLE: usize = 200;

/// The columns that must be there, by the ending of their table's name.
const COLUMNS: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "id",
            "key",
            "state",
            "token",
            "attempt",
            "fingerprint",
            "lease_ms",
            "ttl_ms",
            "lease_until",
            "expires_at",
            "sweep_at",
            "payload",
            "began_ms",
            "owner",
        ],
    ),
    ("_leases", &["id", "token", "lease_until", "expires_at", "is_over"]),
    ("_steps", &["id", "name", "step"]),
];

/// More dead rows than this, and than living ones, slow a table down.
const MANY_DEAD: i64 = 10_000;

const MEBI: i64 = 1024 * 1024;

pub(super) async fn findings(backend: &PostgresBackend) -> Vec<Finding> {
    let tables = match tables(backend).await {
        Ok(tables) => tables,
        Err(error) => Finding::unchecked("tables", with_cause(&error)),
    };
    if tables.health != Health::Good {
        return vec![tables];
    }
    vec![
        tables,
        checked("migrations", migrations(backend).await),
        checked("permissions", permissions(backend).await),
        checked("indexes", indexes(backend).await),
        checked("sweeper", sweeper(backend).await),
        checked("size", size(backend).await),
        checked("records", records(backend).await),
    ]
}

/// Selects the tables as `relation`, with the ending of each one's name, and with a name for people.
fn relations(backend: &PostgresBackend) -> String {
    let name = &backend.table.name;
    let endings = COLUMNS.map(|(ending, _)| format!("('{ending}')")).join(", ");
    format!(
        "WITH relation AS (SELECT class.oid, ending, class.relname FROM (VALUES {endings}) AS wanted (ending) \
         JOIN pg_class AS class ON class.relname = '{}' || ending \
         JOIN pg_namespace AS space ON space.oid = class.relnamespace AND space.nspname = '{}') ",
        name.plain(),
        name.schema()
    )
}

/// Whether every table has every column.
async fn tables(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "tables";
    let wanted = COLUMNS.iter().flat_map(|(ending, columns)| {
        let column = move |column: &&str| format!("('{ending}', '{column}')");
        columns.iter().map(column)
    });
    let wanted = wanted.collect::<Vec<_>>().join(", ");
    let sql = format!(
        "{}SELECT string_agg('{}' || ending || '.' || name, ', ') FROM (VALUES {wanted}) AS wanted (ending, name) \
         WHERE NOT EXISTS (SELECT FROM relation JOIN pg_attribute ON attrelid = oid \
         WHERE relation.ending = wanted.ending AND attname = name AND NOT attisdropped)",
        relations(backend),
        backend.table.name.plain(),
    );
    let missing: Option<String> = column(&row(backend, sql).await?, 0)?;
    Ok(match missing {
        None => Finding::good(CHECK, "all tables and columns are there"),
        Some(missing) => {
            let schema = backend.table.name.schema();
            let text = format!(
                "in the schema `{schema}` these columns are missing: {missing}; run `PostgresBackend::migrate`, or see `with_schema`"
            );
            Finding::failing(CHECK, text)
        }
    })
}

async fn migrations(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "migrations";
    let name = &backend.table.name;
    let (schema, table) = (name.schema(), name.plain());
    let are_noted = format!(
        "SELECT EXISTS (SELECT FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace \
         WHERE nspname = '{schema}' AND relname = '{table}_migrations')"
    );
    if !column::<bool>(&row(backend, are_noted).await?, 0)? {
        let text = "`PostgresBackend::migrate` has never run, so the application's own migrations have made the tables";
        return Ok(Finding::good(CHECK, text));
    }
    let done = format!(
        "SELECT string_agg(version || ' ' || encode(checksum, 'hex'), ',' ORDER BY version) FROM {} WHERE success",
        name.qualified_with("_migrations")
    );
    let done: Option<String> = column(&row(backend, done).await?, 0)?;
    let done = done.unwrap_or_default();
    let done: Vec<_> = done.split(',').filter(|done| !done.is_empty()).collect();
    let known = migrations::known(name);
    if let Some(other) = done.iter().find(|done| !known.iter().any(|known| known == *done)) {
        let version = other.split(' ').next().unwrap_or_default();
        let text = format!(
            "migration {version} has run, which is not one of this version's: running processes go on, but none of this version \
             starts any more that migrates; update them"
        );
        return Ok(Finding::warning(CHECK, text));
    }
    Ok(if done.len() < known.len() {
        let text = format!(
            "{} of {} migrations have run: run `PostgresBackend::migrate`",
            done.len(),
            known.len()
        );
        Finding::failing(CHECK, text)
    } else {
        Finding::good(CHECK, format!("all {} have run", known.len()))
    })
}

/// What the role of the connections may do.
async fn permissions(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "permissions";
    let schema = backend.table.name.schema();
    let sql = format!(
        "{}SELECT string_agg(lack, ', ') FROM (SELECT privilege || ' on ' || relname AS lack FROM relation, \
         (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS wanted (privilege) \
         WHERE NOT has_table_privilege(oid, privilege) UNION ALL SELECT 'USAGE on the schema ' || nspname FROM pg_namespace \
         WHERE nspname = '{schema}' AND NOT has_schema_privilege(oid, 'USAGE')) AS lacks",
        relations(backend)
    );
    let missing: Option<String> = column(&row(backend, sql).await?, 0)?;
    Ok(match missing {
        None => Finding::good(CHECK, "the role may read and write the tables"),
        Some(missing) => Finding::failing(
            CHECK,
            format!("the role lacks {missing}: requests with new keys get 503"),
        ),
    })
}

/// The keys, without which statements fail, and the index of the sweep.
async fn indexes(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "indexes";
    let sql = format!(
        "{}SELECT (SELECT string_agg(relname, ', ') FROM relation WHERE NOT EXISTS (SELECT FROM pg_index \
         WHERE indrelid = oid AND indisprimary AND indisvalid)), \
         EXISTS (SELECT FROM relation JOIN pg_constraint ON conrelid = relation.oid WHERE ending = '_steps' AND contype = 'f' \
         AND confdeltype = 'c' AND confrelid = (SELECT oid FROM relation WHERE ending = '')), \
         EXISTS (SELECT FROM relation JOIN pg_index ON indrelid = oid JOIN pg_attribute ON attrelid = oid \
         AND attnum = indkey[0] WHERE ending = '' AND attname = 'sweep_at' AND indisvalid AND indpred IS NULL)",
        relations(backend)
    );
    let row = row(backend, sql).await?;
    let without_key: Option<String> = column(&row, 0)?;
    let (steps_end, can_sweep): (bool, bool) = (column(&row, 1)?, column(&row, 2)?);
    Ok(if let Some(without_key) = without_key {
        let text = format!("these tables have no valid primary key, without which claims fail: {without_key}");
        Finding::failing(CHECK, text)
    } else if !steps_end {
        let text = "the steps have no foreign key that deletes them with their record: a later request with the same key would \
                    take them for its own; create the key of `idem_postgres::MIGRATIONS`";
        Finding::failing(CHECK, text)
    } else if can_sweep {
        Finding::good(CHECK, "the keys and the index of the sweep are there and valid")
    } else {
        let text = "there is no valid index on `sweep_at`, so each sweep reads the whole table: create the index of \
                    `idem_postgres::MIGRATIONS`";
        Finding::warning(CHECK, text)
    })
}

async fn sweeper(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "sweeper";
    let row = row(backend, backend.table.statements.operator.late.as_str()).await?;
    let (late, age): (i64, Option<i64>) = (column(&row, 0)?, column(&row, 1)?);
    let Some(age) = age else {
        return Ok(Finding::good(CHECK, "no record is more than an hour late to be swept"));
    };
    let at_least = if late == 1_000 { "at least " } else { "" };
    let text = format!(
        "{at_least}{late} records should have been swept more than an hour ago, the first one {} h ago: no process sweeps \
         them, or none is fast enough. See `PostgresBackend::with_sweeper`. Requests are not affected, but the table grows",
        age.unsigned_abs() / 3_600
    );
    Ok(Finding::warning(CHECK, text))
}

/// How large the tables are, and how much of them is dead.
async fn size(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "size";
    let sql = format!(
        "{}SELECT sum(pg_total_relation_size(oid))::bigint, sum(n_live_tup)::bigint, sum(n_dead_tup)::bigint, \
         current_setting('autovacuum') FROM relation LEFT JOIN pg_stat_user_tables ON relid = oid",
        relations(backend)
    );
    let row = row(backend, sql).await?;
    let count = |index| Ok::<_, BackendError>(column::<Option<i64>>(&row, index)?.unwrap_or(0));
    let (bytes, live, dead) = (count(0)?, count(1)?, count(2)?);
    let autovacuum: String = column(&row, 3)?;
    let text = format!(
        "the tables take {} MiB, with about {live} living and {dead} dead rows",
        bytes / MEBI
    );
    Ok(if autovacuum != "on" {
        Finding::warning(
            CHECK,
            text + "; `autovacuum` is off, so they grow with each request: turn it on, or run VACUUM",
        )
    } else if dead > MANY_DEAD && dead > live {
        let text = text
            + "; autovacuum falls behind: look for a transaction that is open for long, and see the settings of \
                           autovacuum for these tables";
        Finding::warning(CHECK, text)
    } else {
        Finding::good(CHECK, text)
    })
}

/// Reads some records, to find those in a form of another version. Ids are hashes, so that the first ones are a random sample.
async fn records(backend: &PostgresBackend) -> Checked {
    const CHECK: &str = "records";
    let page = backend.scan(&Selection::all(), None, SAMPLE).await?;
    let looked = format!("of {} records that were looked at", page.looked_at);
    let unreadable: Vec<_> = page
        .records
        .iter()
        .filter_map(|listed| match listed {
            Listed::Unreadable(unreadable) => Some(&unreadable.why),
            Listed::Record(_) => None,
        })
        .collect();
    Ok(match unreadable.first() {
        None => Finding::good(CHECK, format!("{looked}, each can be read")),
        Some(why) => {
            let text = format!(
                "{looked}, {} cannot be read ({why}): a request with such a key gets 503 until the record expires; another \
                 version of idem has written it, or something else has",
                unreadable.len()
            );
            Finding::failing(CHECK, text)
        }
    })
}
