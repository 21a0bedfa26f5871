//! What Cloudflare charges, as its pages said in November 2026: in US dollars, on the paid plan, beyond what it includes.

use serde::Serialize;

/// What a million of something costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Price {
    /// What a person calls it.
    pub(super) what: &'static str,
    /// For each million.
    #[serde(rename = "dollars_a_million")]
    pub(super) dollars: f64,
    /// How many a month are included.
    #[serde(rename = "included_a_month")]
    pub(super) included: &'static str,
    /// Where it says so, under <https://developers.cloudflare.com/>.
    pub(super) page: &'static str,
}

/// A call of either Worker: a request, a batch of messages, a round of upkeep.
pub(super) const INVOCATION: Price = Price {
    what: "Worker invocations",
    dollars: 0.30,
    included: "10 million",
    page: "workers/platform/pricing",
};

/// Each 64 KB of a message, or part of it, written, read or deleted.
pub(super) const QUEUE_OPERATION: Price =
    Price { what: "Queue operations", dollars: 0.40, included: "1 million", page: "queues/platform/pricing" };

/// A page of up to 1,000 objects listed.
pub(super) const CLASS_A: Price =
    Price { what: "R2 class A (list)", dollars: 4.50, included: "1 million", page: "r2/pricing" };

/// A look at one object.
pub(super) const CLASS_B: Price =
    Price { what: "R2 class B (head)", dollars: 0.36, included: "10 million", page: "r2/pricing" };

/// A delete, of up to 1,000 keys. The page names `DeleteObject` as free, and a delete of several keys nowhere.
pub(super) const DELETE: Price =
    Price { what: "R2 deletes", dollars: 0.0, included: "all", page: "r2/pricing" };

/// A row, or an entry of an index, that is inserted, updated or deleted.
pub(super) const ROW_WRITTEN: Price =
    Price { what: "D1 rows written", dollars: 1.00, included: "50 million", page: "d1/platform/pricing" };

/// The same when the ledger forgets a deletion, 7 days after its end: a delete is a write.
pub(super) const ROW_REMOVED: Price = Price { what: "D1 rows removed later", ..ROW_WRITTEN };

/// A row that a statement looks at.
pub(super) const ROW_READ: Price =
    Price { what: "D1 rows read", dollars: 0.001, included: "25 billion", page: "d1/platform/pricing" };

/// What either Worker logs, and each invocation, which the platform logs.
pub(super) const LOG_EVENT: Price = Price {
    what: "Workers Logs events",
    dollars: 0.60,
    included: "20 million",
    page: "workers/observability/logs/workers-logs",
};

/// Writing, reading and deleting a message of one key.
pub(super) const OPERATIONS_OF_A_MESSAGE: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_the_same_prices() {
        let page = include_str!("../../../../docs/cost.md");
        for price in [INVOCATION, QUEUE_OPERATION, CLASS_A, CLASS_B, DELETE, ROW_WRITTEN, ROW_READ, LOG_EVENT]
        {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| {} |", price.what)) && line.contains(price.page))
                .unwrap_or_else(|| panic!("docs/cost.md has no price of {}", price.what));
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert_eq!(cells[2].parse(), Ok(price.dollars), "{row}");
            assert_eq!(cells[3], price.included, "{row}");
        }
    }
}
