use protocol::Timestamp;

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

/// A parameter of a statement, or what a column of its answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text; at most 2 MB in D1.
    Text(String),
    /// An integer, exact up to 2^53 because it crosses JavaScript.
    Integer(u64),
    /// Nothing.
    Null,
}

/// A row of an answer: its columns by name.
///
/// Read by hand rather than by serde: a deserializer for each kind of row was a tenth of each Worker's wasm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(Vec<(String, Value)>);

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

impl FromIterator<(String, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(columns: I) -> Self {
        Self(columns.into_iter().collect())
    }
}

impl Row {
    fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    /// The number in a column.
    pub(crate) fn number<T: TryFrom<u64>>(&self, column: &'static str) -> Result<T, LedgerError> {
        self.number_if_any(column)?.ok_or_else(|| unexpected(column))
    }

    /// The number in a column that may be empty.
    pub(crate) fn number_if_any<T: TryFrom<u64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, LedgerError> {
        match self.get(column) {
            Some(Value::Null) => Ok(None),
            Some(Value::Integer(number)) => T::try_from(*number).map(Some).map_err(|_| unexpected(column)),
            _ => Err(unexpected(column)),
        }
    }

    /// The truth in a column: SQLite's 0 or 1.
    pub(crate) fn is(&self, column: &'static str) -> Result<bool, LedgerError> {
        Ok(self.number_if_any::<u64>(column)? == Some(1))
    }

    /// The time in a column.
    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, LedgerError> {
        self.number(column).map(Timestamp::from_millis)
    }

    /// The time in a column that may be empty.
    pub(crate) fn time_if_any(&self, column: &'static str) -> Result<Option<Timestamp>, LedgerError> {
        Ok(self.number_if_any(column)?.map(Timestamp::from_millis))
    }

    /// The text in a column.
    pub(crate) fn text(&self, column: &'static str) -> Result<&str, LedgerError> {
        self.text_if_any(column)?.ok_or_else(|| unexpected(column))
    }

    /// The text in a column that may be empty.
    pub(crate) fn text_if_any(&self, column: &'static str) -> Result<Option<&str>, LedgerError> {
        match self.get(column) {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            _ => Err(unexpected(column)),
        }
    }

    /// Something that a text says, such as an id.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, column: &'static str) -> Result<T, LedgerError> {
        self.text(column)?.parse().map_err(|_| unexpected(column))
    }
}

fn unexpected(column: &'static str) -> LedgerError {
    LedgerError::new(format!("the column {column} is not of the expected form"))
}

/// Takes the rows of the next statement out of an answer.
pub(crate) fn next_rows(answer: &mut impl Iterator<Item = Vec<Row>>) -> Result<Vec<Row>, LedgerError> {
    answer.next().ok_or_else(|| LedgerError::new("the answer has fewer results than statements"))
}

/// Runs one statement.
pub(crate) async fn run(database: &impl Database, statement: Statement) -> Result<Vec<Row>, LedgerError> {
    next_rows(&mut database.batch(vec![statement]).await?.into_iter())
}

/// JSON for a parameter that carries several values.
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value, LedgerError> {
    serde_json::to_string(value).map(Value::Text).map_err(|error| LedgerError::new(error.to_string()))
}
