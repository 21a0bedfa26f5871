//! What was counted, as tables for people and as JSON for scripts.

use std::fmt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    counts::Counts,
    prices::{
        CLASS_A, CLASS_B, DELETE, INVOCATION, LOG_EVENT, OPERATIONS_OF_A_MESSAGE, Price, QUEUE_OPERATION,
        ROW_READ, ROW_REMOVED, ROW_WRITTEN,
    },
};

/// What a million keys of 60 bytes, named in requests of 100,000, may take until they are deleted.
const QUEUE_OPERATIONS_MAX: u64 = 3_300;
const ROWS_WRITTEN_MAX: u64 = 2_300;

/// What the targets are for: keys of this length, so many to a request.
const KEY_BYTES: u32 = 60;
const KEYS: u64 = 100_000;

/// What all numbers are for.
const MILLION: u64 = 1_000_000;

/// One workload, counted.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) deletions: u64,
    pub(super) keys: u64,
    /// From the request until the last message is acknowledged.
    pub(super) until_over: Counts,
    /// What removing it from the ledger takes, days later.
    pub(super) removal: Counts,
    /// What a round of upkeep reads that finds nothing to do, with the deletions of this workload in the ledger.
    pub(super) upkeep_rows_read: u64,
}

/// All workloads.
pub(super) struct Report {
    pub(super) key_bytes: u32,
    pub(super) measured: Vec<Measured>,
}

impl Measured {
    /// What is paid for, in the order of the table.
    fn paid(&self) -> [(Price, u64); 9] {
        let over = |name| self.until_over.of(name);
        let operations =
            ["queue_operations_written", "queue_operations_read", "queue_operations_deleted"].map(over);
        [
            (INVOCATION, over("worker_invocations")),
            (QUEUE_OPERATION, operations.iter().sum()),
            (CLASS_A, over("r2_lists")),
            (CLASS_B, over("r2_heads")),
            (DELETE, over("r2_deletes")),
            (ROW_WRITTEN, over("d1_rows_written")),
            (ROW_REMOVED, self.removal.of("d1_rows_written")),
            (ROW_READ, over("d1_rows_read") + self.removal.of("d1_rows_read")),
            (LOG_EVENT, over("log_events")),
        ]
    }

    /// How many of `counted` a million keys take, rounded up.
    fn for_a_million(&self, counted: u64) -> u64 {
        (counted * MILLION).div_ceil(self.keys)
    }

    fn dollars(&self) -> f64 {
        self.paid().iter().map(|(price, counted)| dollars(*price, self.for_a_million(*counted))).sum()
    }

    fn title(&self) -> String {
        format!("{} keys, {}", self.keys, self.name)
    }

    fn to_json(&self) -> Value {
        let paid = self.paid().map(|(price, counted)| (price.what, self.for_a_million(counted)));
        json!({
            "workload": self.name,
            "keys": self.keys,
            "deletions": self.deletions,
            "counted": { "until_over": self.until_over, "removal": self.removal },
            "upkeep_rows_read": self.upkeep_rows_read,
            "for_a_million_keys": paid.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "dollars_for_a_million_keys": self.dollars(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a price for people")]
fn dollars(price: Price, count: u64) -> f64 {
    count as f64 / MILLION as f64 * price.dollars
}

impl Report {
    /// The targets, with what was counted for them.
    fn targets(&self) -> Vec<(Price, u64, u64)> {
        let named = self.measured.first().map(|measured| (measured, measured.paid()));
        let of = |price: Price| {
            let (measured, paid) = named.as_ref()?;
            let (_, counted) = paid.iter().find(|(paid, _)| paid.what == price.what)?;
            Some(measured.for_a_million(*counted))
        };
        [(QUEUE_OPERATION, QUEUE_OPERATIONS_MAX), (ROW_WRITTEN, ROWS_WRITTEN_MAX)]
            .into_iter()
            .filter_map(|(price, most)| Some((price, of(price)?, most)))
            .collect()
    }

    /// Fails where a target is missed, if it was measured as the target is meant: with larger keys, or fewer in a request, a
    /// million takes more.
    pub(super) fn check(&self) -> Result<()> {
        let is_meant =
            self.key_bytes <= KEY_BYTES && self.measured.first().is_some_and(|named| named.keys >= KEYS);
        for (price, found, most) in self.targets() {
            ensure!(!is_meant || found <= most, "{}: {found}, at most {most}", price.what);
        }
        Ok(())
    }

    /// Everything that was counted, and what follows from it.
    pub(super) fn to_json(&self) -> Result<String> {
        let targets = self.targets();
        let targets: Vec<_> = targets
            .iter()
            .map(|(price, found, most)| {
                json!({ "of": price.what, "found": found, "at_most": most, "met": found <= most })
            })
            .collect();
        Ok(serde_json::to_string_pretty(&json!({
            "key_bytes": self.key_bytes,
            "workloads": self.measured.iter().map(Measured::to_json).collect::<Vec<_>>(),
            "prices": self.measured.first().map(|measured| measured.paid().map(|(price, _)| price)),
            "one_key_a_message": { "queue_operations": MILLION * OPERATIONS_OF_A_MESSAGE },
            "targets": targets,
        }))?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nA million keys of {} bytes take, by what was counted:\n", self.key_bytes)?;
        write!(f, "| | $ a million | included a month |")?;
        self.measured.iter().try_for_each(|measured| write!(f, " {} |", measured.title()))?;
        writeln!(f, "\n|---|---|---|{}", "---|".repeat(self.measured.len()))?;
        let rows: Vec<_> = self.measured.iter().map(Measured::paid).collect();
        for (index, (price, _)) in rows.first().into_iter().flatten().enumerate() {
            write!(f, "| {} | {} | {} |", price.what, price.dollars, price.included)?;
            for (measured, paid) in self.measured.iter().zip(&rows) {
                let counted = paid.get(index).map_or(0, |(_, counted)| *counted);
                write!(f, " {} |", measured.for_a_million(counted))?;
            }
            writeln!(f)?;
        }
        write!(f, "| beyond what is included | | |")?;
        self.measured.iter().try_for_each(|measured| write!(f, " ${:.4} |", measured.dollars()))?;
        let operations = MILLION * OPERATIONS_OF_A_MESSAGE;
        writeln!(
            f,
            "\n\nOne key a message would take {operations} Queue operations, ${:.2}.",
            dollars(QUEUE_OPERATION, operations)
        )?;

        for measured in &self.measured {
            writeln!(f, "\n{}, as counted:\n", measured.title())?;
            writeln!(f, "| statement | times | rows written | rows read |\n|---|---|---|---|")?;
            for (when, counts) in [("", &measured.until_over), (", at the removal", &measured.removal)] {
                for (kind, rows) in &counts.statements {
                    writeln!(f, "| {kind}{when} | {} | {} | {} |", rows.times, rows.written, rows.read)?;
                }
            }
            writeln!(
                f,
                "\nA round of upkeep with them in the ledger reads {} rows.",
                measured.upkeep_rows_read
            )?;
        }
        writeln!(f)?;
        writeln!(f, "For keys of {KEY_BYTES} bytes, {KEYS} to a request, the targets are:")?;
        for (price, found, most) in self.targets() {
            let met = if found <= most { "met" } else { "not met" };
            writeln!(f, "{}: {found} of at most {most}: {met}", price.what)?;
        }
        Ok(())
    }
}
