use serde::de::DeserializeOwned;

/// A database that speaks SQLite's SQL and runs several statements as one transaction.
pub trait Database {
    /// Runs the statements, all or none, and answers with the rows of each.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] when the database refused or did not answer. The statements may have been carried out all the
    /// same: whoever runs them again must be able to.
    fn batch(&self, statements: Vec<Statement>) -> impl Future<Output = Result<Vec<Vec<Row>>, LedgerError>>;
}

/// One SQL statement with its parameters, `?1` being the first.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The SQL, which is never put together from data.
    pub sql: &'static str,
    /// The parameters.
    pub parameters: Vec<Value>,
}

/// A parameter of a statement.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text; at most 2 MB in D1.
    Text(String),
    /// An integer, exact up to 2^53 because it crosses JavaScript.
    Integer(u64),
    /// Nothing.
    Null,
}

/// A row of an answer: its columns by name.
pub type Row = serde_json::Map<String, serde_json::Value>;

/// The ledger could not answer, or what it answered made no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger failed: {cause}")]
pub struct LedgerError {
    /// What the database said; it never has a key in it.
    pub cause: String,
}

impl Statement {
    pub(crate) fn new(sql: &'static str, parameters: impl Into<Vec<Value>>) -> Self {
        Self { sql, parameters: parameters.into() }
    }
}

impl LedgerError {
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into() }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(integer: u64) -> Self {
        Self::Integer(integer)
    }
}

impl From<u32> for Value {
    fn from(integer: u32) -> Self {
        Self::Integer(integer.into())
    }
}

impl From<usize> for Value {
    fn from(integer: usize) -> Self {
        Self::Integer(integer as u64)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Reads rows into a type of ours.
pub(crate) fn read_rows<T: DeserializeOwned>(rows: Vec<Row>) -> Result<Vec<T>, LedgerError> {
    rows.into_iter()
        .map(|row| serde_json::from_value(serde_json::Value::Object(row)))
        .collect::<Result<_, _>>()
        .map_err(|error| LedgerError::new(format!("a row is not of the expected form: {error}")))
}

/// Takes the rows of the next statement out of an answer.
pub(crate) fn next_rows<T: DeserializeOwned>(
    answer: &mut impl Iterator<Item = Vec<Row>>,
) -> Result<Vec<T>, LedgerError> {
    read_rows(answer.next().ok_or_else(|| LedgerError::new("the answer has fewer results than statements"))?)
}

/// JSON for a parameter that carries several values.
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value, LedgerError> {
    serde_json::to_string(value).map(Value::Text).map_err(|error| LedgerError::new(error.to_string()))
}
