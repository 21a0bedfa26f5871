//! D1: the only file of this crate that names the Workers runtime.
//!
//! The binding is called as the JavaScript object that it is. The worker crate's own D1 reads rows through
//! serde-wasm-bindgen, a value at a time across the border; this reads an answer as one text, and is half as large.

use js_sys::{Array, Function, JSON, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::D1Database;

use crate::database::{Database, LedgerError, Row, Statement, Value};

/// The ledger's database as Cloudflare runs it.
pub struct D1(JsValue);

impl D1 {
    /// The database behind a Worker's binding.
    pub fn new(database: D1Database) -> Self {
        Self(JsValue::from(database))
    }

    async fn run(&self, statements: &[Statement]) -> Result<String, JsValue> {
        let prepared = Array::new();
        for Statement { sql, parameters } in statements {
            let statement = call(&self.0, "prepare", &Array::of1(&JsValue::from_str(sql)))?;
            prepared.push(&call(&statement, "bind", &parameters.iter().map(to_js).collect())?);
        }
        let answer = call(&self.0, "batch", &Array::of1(&prepared))?;
        let results: Array = JsFuture::from(answer.dyn_into::<Promise>()?).await?.dyn_into()?;
        let rows: Array = results
            .iter()
            .map(|result| Reflect::get(&result, &JsValue::from_str("results")))
            .collect::<Result<_, _>>()?;
        JSON::stringify(&rows).map(String::from)
    }
}

impl std::fmt::Debug for D1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("D1")
    }
}

impl Database for D1 {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        let rows = self.run(&statements).await.map_err(|error| LedgerError::new(to_text(&error)))?;
        serde_json::from_str(&rows).map_err(|error| LedgerError::new(error.to_string()))
    }
}

fn call(object: &JsValue, method: &str, arguments: &Array) -> Result<JsValue, JsValue> {
    let method: Function = Reflect::get(object, &JsValue::from_str(method))?.dyn_into()?;
    method.apply(object, arguments)
}

fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Text(text) => JsValue::from_str(text),
        #[expect(clippy::cast_precision_loss, reason = "OK because times and counts stay far below 2^53")]
        Value::Integer(integer) => JsValue::from_f64(*integer as f64),
        Value::Null => JsValue::NULL,
    }
}

/// What the database said: its error's message.
fn to_text(error: &JsValue) -> String {
    let message = Reflect::get(error, &JsValue::from_str("message")).unwrap_or_default();
    message.as_string().unwrap_or_else(|| "the database gave no reason".to_owned())
}
