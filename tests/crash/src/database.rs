//! The ledger's database: a real SQLite behind D1's binding protocol, failing on demand.

mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rusqlite::limits::Limit;
use rusqlite::{Connection, Params, Row};

use crate::clock::Clock;
use crate::config::Binding;
use crate::faults::{Fault, Faults, Met};
use crate::http::Server;

/// An error as D1 answers it; the Worker sees `D1_ERROR:` and the text.
#[derive(Debug, Clone)]
pub struct D1Error(pub String);

impl D1Error {
    /// What D1 says when it lost the storage under a request: whether it was applied is unknown.
    pub fn reset() -> Self {
        Self("Internal error in D1 DB storage caused object to be reset.".to_owned())
    }
}

impl From<&str> for D1Error {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A database in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Mutex<Connection>,
    /// All there are, and how many of them are applied.
    migrations: Mutex<(Vec<PathBuf>, usize)>,
    faults: Faults<D1Error>,
    log: Mutex<Vec<String>>,
}

/// D1's documented limits: bytes of a statement, bytes of a value or row, columns, bound parameters.
const LIMITS: [(Limit, i32); 4] = [
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (Limit::SQLITE_LIMIT_LENGTH, 2_000_000),
    (Limit::SQLITE_LIMIT_COLUMN, 100),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 100),
];

impl Database {
    /// Starts empty; [`Database::migrate`] applies the SQL files of `migrations` in the order of their names.
    ///
    /// # Errors
    /// When they cannot be listed, or it cannot listen.
    pub fn start(migrations: &Path) -> Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let mut files: Vec<_> = std::fs::read_dir(migrations)
            .with_context(|| format!("no migrations in {}", migrations.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
        files.sort();
        let shared = Arc::new(Shared {
            connection: Mutex::new(connection),
            migrations: Mutex::new((files, 0)),
            faults: Faults::default(),
            log: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        Ok(Self { server: Server::start(move |request| served.answer(&request))?, shared })
    }

    /// Applies one migration after the other, and looks before each of them.
    ///
    /// # Errors
    /// When one does not apply, or `look` fails.
    pub fn migrate_by_steps(&self, mut look: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            let (files, applied) = self.shared.migrations();
            let Some(file) = files.get(applied) else { return Ok(()) };
            look()?;
            let sql = std::fs::read_to_string(file)?;
            let connection = self.shared.connection();
            // A migration may be longer than D1 lets a Worker's statement be.
            for (limit, _) in LIMITS {
                connection.set_limit(limit, i32::MAX)?;
            }
            connection.execute_batch(&sql).with_context(|| format!("{} does not apply", file.display()))?;
            for (limit, value) in LIMITS {
                connection.set_limit(limit, value)?;
            }
            drop(connection);
            self.shared.migrations.lock().unwrap_or_else(PoisonError::into_inner).1 = applied + 1;
        }
    }

    /// All migrations that there are.
    pub fn migrations(&self) -> Vec<PathBuf> {
        self.shared.migrations().0
    }

    /// Applies all migrations.
    ///
    /// # Errors
    /// When one does not apply.
    pub fn migrate(&self) -> Result<()> {
        self.migrate_by_steps(|| Ok(()))
    }

    /// What binds the database to a Worker.
    pub fn binding(&self) -> Binding {
        Binding::Database(self.server.address)
    }

    /// Runs SQL of the test, in its own right.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.shared.connection().execute(sql, params).with_context(|| sql.to_owned())
    }

    /// Reads rows for an assertion.
    ///
    /// # Errors
    /// When SQLite refuses the statement or a row cannot be read by `row`.
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let connection = self.shared.connection();
        let mut statement = connection.prepare(sql).with_context(|| sql.to_owned())?;
        let rows = statement.query_map(params, row)?.collect::<rusqlite::Result<_>>()?;
        Ok(rows)
    }

    /// Of the requests of `worker` with `sql` in one of their statements, spares the first `spare`, then the next
    /// `times` suffer `fault`. Either text may be empty and then fits every request.
    pub fn fail(&self, worker: &str, sql: &str, spare: usize, times: usize, fault: Fault<D1Error>) {
        self.shared.faults.plan(&[worker, sql], spare, times, fault);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.server.is_busy()
    }

    pub(crate) fn met(&self) -> Met {
        self.shared.faults.met()
    }

    /// Forgets the faults that were planned and have not struck.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }

    /// Every request so far: the name of the Worker, a colon and its statements, a line each.
    pub fn requests(&self) -> Vec<String> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `sql` with the milliseconds of every time that the clock skips as its one parameter, so that what is
    /// stored as a moment, a claim's expiry for example, passes as well.
    pub fn move_with(&self, clock: &Clock, sql: &'static str) {
        let shared = Arc::clone(&self.shared);
        clock.on_skip(move |skipped: Duration| {
            let ms = i64::try_from(skipped.as_millis()).unwrap_or(i64::MAX);
            // OK to ignore: a test whose claims do not expire fails by itself.
            drop(shared.connection().execute(sql, [ms]));
        });
    }
}

impl Shared {
    fn migrations(&self) -> (Vec<PathBuf>, usize) {
        self.migrations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
