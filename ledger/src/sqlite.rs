use std::cell::{Cell, RefCell};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, StatementStatus, params_from_iter};

use crate::database::{Database, LedgerError, Row, Statement, Value};

/// More than the ledger has statements.
const STATEMENTS_MAX: usize = 512;

/// The ledger's database in memory, on a SQLite of our own: for tests.
#[derive(Debug)]
pub struct SqliteDatabase {
    connection: RefCell<Connection>,
    steps: Cell<u64>,
}

impl SqliteDatabase {
    /// An empty ledger, its migrations applied.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when SQLite refuses.
    pub fn in_memory() -> Result<Self, LedgerError> {
        // One thread has it, as the type says: SQLite need not lock.
        let flags =
            OpenFlags::default() & !OpenFlags::SQLITE_OPEN_FULL_MUTEX | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_in_memory_with_flags(flags)?;
        connection.execute_batch(include_str!("../migrations/0001_ledger.sql"))?;
        // A plan that depended on what is bound would be made anew for every binding.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Self { connection: RefCell::new(connection), steps: Cell::default() })
    }

    /// How many steps SQLite has taken for all statements so far: a row that is read takes a few, on any machine.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Empties every table. What was prepared stays: for a test that needs many ledgers, it was half of the time.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when SQLite refuses.
    pub fn clear(&self) -> Result<(), LedgerError> {
        let connection = self.connection.borrow();
        let mut tables = connection.prepare_cached("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let tables: Vec<String> = tables.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for table in tables {
            connection.prepare_cached(&format!("DELETE FROM {table}"))?.execute([])?;
        }
        Ok(())
    }
}

impl Database for SqliteDatabase {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        let mut connection = self.connection.borrow_mut();
        let transaction = connection.transaction()?;
        let answer = statements
            .iter()
            .map(|statement| run(&transaction, statement, &self.steps))
            .collect::<Result<_, _>>()?;
        transaction.commit()?;
        Ok(answer)
    }
}

fn run(
    connection: &Connection,
    Statement { sql, parameters }: &Statement,
    steps: &Cell<u64>,
) -> Result<Vec<Row>, LedgerError> {
    let mut statement = connection.prepare_cached(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let parameters = parameters.iter().map(|value| match value {
        Value::Text(text) => rusqlite::types::Value::Text(text.clone()),
        // OK because no time or count of ours comes near 2^63.
        Value::Integer(integer) => {
            rusqlite::types::Value::Integer(i64::try_from(*integer).unwrap_or(i64::MAX))
        }
        Value::Null => rusqlite::types::Value::Null,
    });
    let rows = statement.query_map(params_from_iter(parameters), |row| {
        names.iter().enumerate().map(|(n, name)| Ok((name.clone(), to_value(row, n)?))).collect()
    })?;
    let rows = rows.collect::<Result<_, _>>()?;
    let taken = statement.reset_status(StatementStatus::VmStep);
    steps.set(steps.get() + u64::try_from(taken).unwrap_or_default());
    Ok(rows)
}

/// Refuses what the deserializer of D1's answers refuses.
fn to_value(row: &rusqlite::Row<'_>, column: usize) -> Result<Value, rusqlite::Error> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(integer) => match u64::try_from(integer) {
            Ok(integer) => Ok(Value::Integer(integer)),
            Err(_) => Err(rusqlite::Error::IntegralValueOutOfRange(column, integer)),
        },
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Ok(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
        }
        ValueRef::Real(_) => row.get(column).map(Value::Text),
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error.to_string())
    }
}
