//! D1: the only file of this crate that names the Workers runtime.

use wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement};

use crate::database::{Database, LedgerError, Row, Statement, Value};

/// The ledger's database as Cloudflare runs it.
pub struct D1(D1Database);

impl D1 {
    /// The database behind a Worker's binding.
    pub fn new(database: D1Database) -> Self {
        Self(database)
    }

    fn prepare(&self, Statement { sql, parameters }: &Statement) -> Result<D1PreparedStatement, LedgerError> {
        let parameters: Vec<JsValue> = parameters.iter().map(to_js).collect();
        Ok(self.0.prepare(*sql).bind(&parameters)?)
    }
}

impl std::fmt::Debug for D1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("D1")
    }
}

impl Database for D1 {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        let prepared =
            statements.iter().map(|statement| self.prepare(statement)).collect::<Result<_, _>>()?;
        let results = self.0.batch(prepared).await?;
        results
            .iter()
            .map(|result| Ok(result.results::<serde_json::Map<_, _>>()?.into_iter().map(Row::from).collect()))
            .collect()
    }
}

fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Text(text) => JsValue::from_str(text),
        #[expect(clippy::cast_precision_loss, reason = "OK because times and counts stay far below 2^53")]
        Value::Integer(integer) => JsValue::from_f64(*integer as f64),
        Value::Null => JsValue::NULL,
    }
}

impl From<worker::Error> for LedgerError {
    fn from(error: worker::Error) -> Self {
        Self::new(error.to_string())
    }
}
