//! What was counted, as tables, and in the form of all benches.

use std::fmt;

use super::{
    super::report::{Comparison, Row, Target},
    Options,
    counts::Counts,
    prices::{
        CLASS_A, CLASS_B, DELETE, INVOCATION, LOG_EVENT, OPERATIONS_OF_A_MESSAGE, Price, QUEUE_OPERATION,
        ROW_READ, ROW_REMOVED, ROW_WRITTEN,
    },
};

/// What a million keys of 60 bytes, named in requests of 100,000, may take until they are deleted.
const QUEUE_OPERATIONS_MAX: u64 = 3_300;
const ROWS_WRITTEN_MAX: u64 = 2_300;

const OURS: &str = "this pair";

/// What all numbers are for.
const MILLION: u64 = 1_000_000;

/// One workload, counted.
pub(super) struct Measured {
    pub(super) name: &'static str,
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
}

#[expect(clippy::cast_precision_loss, reason = "a price for people")]
fn dollars(price: Price, count: u64) -> f64 {
    count as f64 / MILLION as f64 * price.dollars
}

impl Report {
    /// What is promised of the first workload, and what all cost. With larger keys, or fewer in a request, a million takes more:
    /// the promise is for the usual ones.
    pub(super) fn comparisons(&self) -> Vec<Comparison> {
        let Some(named) = self.measured.first() else { return Vec::new() };
        let is_usual = self.key_bytes <= Options::USUAL.key_bytes && named.keys >= Options::USUAL.keys.into();
        let one_key_a_message = Row::new("one key a message", [exact(MILLION * OPERATIONS_OF_A_MESSAGE)]);
        let promised = [
            (QUEUE_OPERATION, QUEUE_OPERATIONS_MAX, vec![one_key_a_message]),
            (ROW_WRITTEN, ROWS_WRITTEN_MAX, Vec::new()),
        ];
        let promised = promised.into_iter().map(|(price, most, others)| {
            let paid = named.paid().into_iter().find(|(paid, _)| paid.what == price.what);
            let found = named.for_a_million(paid.map_or(0, |(_, counted)| counted));
            let rows = [vec![Row::new(OURS, [exact(found)])], others].concat();
            let case = format!("a million keys of {} bytes: {}", self.key_bytes, price.what);
            let comparison = Comparison::of_portable("cost", case, "", rows);
            comparison.promising(is_usual.then(|| Target::value(exact(most)).binding()))
        });
        let costs = self.measured.iter().map(|measured| {
            let case = format!("a million keys of {} bytes, {}", self.key_bytes, measured.name);
            Comparison::of_portable("cost", case, "$", vec![Row::new(OURS, [measured.dollars()])])
        });
        promised.chain(costs).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn exact(count: u64) -> f64 {
    count as f64
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
        Ok(())
    }
}
