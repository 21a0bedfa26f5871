//! D1, for wasm32.
//!
//! The worker crate's own D1 reads rows through serde-wasm-bindgen, a value at a time across the border; this reads an
//! answer as one text, and is half as large.

use js_sys::{Array, JSON, Promise, Reflect};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use crate::binding::{Binding, long_text, settled, to_text};
use crate::database::{Database, LedgerError, Row, Statement, Value};

#[wasm_bindgen]
extern "C" {
    type Bound;

    #[wasm_bindgen(method, catch)]
    fn prepare(this: &Bound, sql: &str) -> Result<Prepared, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn batch(this: &Bound, statements: &Array) -> Result<Promise, JsValue>;

    type Prepared;

    #[wasm_bindgen(method, catch, variadic)]
    fn bind(this: &Prepared, parameters: &Array) -> Result<JsValue, JsValue>;
}

/// The ledger's database as Cloudflare runs it.
#[derive(Debug)]
pub struct D1(Binding);

impl D1 {
    /// The database behind a Worker's binding.
    ///
    /// # Errors
    ///
    /// What is there instead, for the operator's log.
    pub fn find(env: &JsValue, name: &str) -> Result<Self, String> {
        Binding::find(env, name, "D1Database").map(Self)
    }

    async fn run(&self, statements: &[Statement]) -> Result<String, String> {
        let prepared: Array =
            statements.iter().map(|statement| self.prepare(statement)).collect::<Result<_, _>>()?;
        let results = settled(self.0.of::<Bound>().batch(&prepared)).await?;
        rows(results).map_err(|error| to_text(&error))
    }

    fn prepare(&self, Statement { sql, parameters }: &Statement) -> Result<JsValue, String> {
        let statement = self.0.of::<Bound>().prepare(sql);
        let bound = statement.and_then(|statement| statement.bind(&parameters.iter().map(to_js).collect()));
        bound.map_err(|error| to_text(&error))
    }
}

impl Database for D1 {
    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, LedgerError> {
        let rows = self.run(&statements).await.map_err(LedgerError::new)?;
        serde_json::from_str(&rows).map_err(|error| LedgerError::new(error.to_string()))
    }
}

/// The rows of each result, as JSON.
fn rows(results: JsValue) -> Result<String, JsValue> {
    let rows: Array = results
        .dyn_into::<Array>()?
        .iter()
        .map(|result| Reflect::get(&result, &JsValue::from_str("results")))
        .collect::<Result<_, _>>()?;
    JSON::stringify(&rows).map(|json| long_text(&json))
}

fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Text(text) => JsValue::from_str(text),
        #[expect(clippy::cast_precision_loss, reason = "OK because times and counts stay far below 2^53")]
        Value::Integer(integer) => JsValue::from_f64(*integer as f64),
        Value::Null => JsValue::NULL,
    }
}
