//! D1's protocol behind the binding.
//!
//! Read from `workerd`'s `src/cloudflare/internal/d1-api.ts`, which is the binding, and miniflare's
//! `src/workers/d1/database.worker.ts`, which answers it locally. A POST to `/query` or `/execute` carries one
//! `{sql, params}` or a list of them, which is one transaction; `resultsFormat` in the query says the shape of the
//! rows. An error is `{success: false, error}` with status 200.

use std::sync::PoisonError;

use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{D1Error, Shared};
use crate::faults::{How, When};
use crate::http::{Answer, Request};

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Body {
    Batch(Vec<Query>),
    One(Query),
}

#[derive(Debug, Deserialize)]
struct Query {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// What keeps a request from its answer: an error, or a connection that closed.
type Failure = Option<D1Error>;

impl Shared {
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let queries = match serde_json::from_slice(&request.body) {
            Ok(Body::Batch(queries)) => queries,
            Ok(Body::One(query)) => vec![query],
            Err(error) => return failure(&D1Error(format!("not a D1 request: {error}"))),
        };
        let statements: Vec<_> = queries.iter().map(|query| query.sql.as_str()).collect();
        // The runtime adds the header for us, so that a fault can choose one Worker: see `config`.
        let label = format!("{}: {}", request.header("x-worker").unwrap_or_default(), statements.join("\n"));
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(label.clone());
        match self.suffer(&label, &queries, Format::of(&request.query)) {
            Ok(results) => Answer::json(&Value::Array(results)),
            Err(Some(error)) => failure(&error),
            Err(None) => Answer::Dropped,
        }
    }

    fn suffer(&self, label: &str, queries: &[Query], format: Format) -> Result<Vec<Value>, Failure> {
        let fault = self.faults.strike(label);
        let after = fault.as_ref().is_some_and(|fault| fault.when == When::After);
        let strike = || match fault.as_ref().map(|fault| &fault.how) {
            None => Ok(()),
            Some(How::Refused(error)) => Err(Some(error.clone())),
            Some(How::Dropped) => Err(None),
            Some(How::Stalled(gate)) => {
                gate.pass();
                Ok(())
            }
        };
        if !after {
            strike()?;
        }
        let results = transact(&mut self.connection(), queries, format);
        if after {
            strike()?;
        }
        results.map_err(|error| Some(describe(&error)))
    }
}

/// The shape in which the binding wants rows.
#[derive(Debug, Clone, Copy)]
enum Format {
    None,
    Objects,
    Rows,
}

impl Format {
    fn of(query: &str) -> Self {
        match query.rsplit_once("resultsFormat=").map(|(_, format)| format) {
            Some("ROWS_AND_COLUMNS") => Self::Rows,
            Some("NONE") => Self::None,
            _ => Self::Objects,
        }
    }
}

fn transact(connection: &mut Connection, queries: &[Query], format: Format) -> rusqlite::Result<Vec<Value>> {
    let transaction = connection.transaction()?;
    let results =
        queries.iter().map(|query| run(&transaction, query, format)).collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok(results)
}

fn run(connection: &Connection, query: &Query, format: Format) -> rusqlite::Result<Value> {
    let before = total_changes(connection)?;
    let mut statement = connection.prepare(&query.sql)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut cursor = statement.query(params_from_iter(query.params.iter().map(bind)))?;
    while let Some(row) = cursor.next()? {
        rows.push((0..columns.len()).map(|at| row.get_ref(at).map(read)).collect::<rusqlite::Result<_>>()?);
    }
    let changes = total_changes(connection)? - before;
    let meta = json!({
        "served_by": "crash", "duration": 0, "changes": changes,
        "last_row_id": connection.last_insert_rowid(), "changed_db": changes > 0, "size_after": 4096,
        // Only roughly what production would bill.
        "rows_read": rows.len(), "rows_written": changes,
    });
    let results = match format {
        Format::None => json!([]),
        Format::Rows => json!({"columns": columns, "rows": rows}),
        Format::Objects => {
            rows.into_iter().map(|row| columns.iter().cloned().zip(row).collect::<Map<_, _>>()).collect()
        }
    };
    Ok(json!({"success": true, "results": results, "meta": meta}))
}

fn total_changes(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT total_changes()", [], |row| row.get(0))
}

/// Numbers are bound as reals, as D1 does: JavaScript has no others.
fn bind(param: &Value) -> Sql {
    match param {
        Value::String(text) => Sql::Text(text.clone()),
        Value::Array(bytes) => Sql::Blob(
            bytes.iter().filter_map(Value::as_u64).filter_map(|byte| u8::try_from(byte).ok()).collect(),
        ),
        param => param.as_f64().map_or(Sql::Null, Sql::Real),
    }
}

fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) => real.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => bytes.into(),
    }
}

fn describe(error: &rusqlite::Error) -> D1Error {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => "SQLITE_CONSTRAINT",
        Some(rusqlite::ErrorCode::TooBig) => "SQLITE_TOOBIG",
        _ => "SQLITE_ERROR",
    };
    D1Error(format!("{error}: {code}"))
}

fn failure(error: &D1Error) -> Answer {
    Answer::json(&json!({"success": false, "error": error.0}))
}
