//! The form that all benches have in common: rounds, medians, ratios, one table, the same as JSON.
//!
//! A machine that does other things beside, as most do, is slow for a minute and quick for the next. So those that are
//! compared take turns, a round is one turn of each, and what is said of two of them is the median of the rounds' ratios, not
//! the ratio of two times that were taken at two moments.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::output;

/// What a run of `cargo xtask bench` has found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// In the order in which they were made.
    pub(super) comparisons: Vec<Comparison>,
}

/// Several ways of doing one thing, ours first. Less is better, whatever the unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    /// The subcommand: `gone`.
    pub(super) bench: String,
    /// What was done: `10,000 keys`. With the bench it names the comparison.
    pub(super) case: String,
    /// What the figures are: `s`, `KB`.
    pub(super) unit: String,
    /// Whether the figures themselves mean something on another machine, as bytes do. Of times only the ratios do.
    pub(super) portable: bool,
    /// Ours is the first.
    pub(super) rows: Vec<Row>,
    /// What is promised of ours.
    pub(super) targets: Vec<Target>,
    /// Whom this machine does not have, and why.
    pub(super) left_out: Vec<String>,
}

/// One way of doing it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Whose.
    pub(super) name: String,
    /// One figure for each round.
    pub(super) rounds: Vec<f64>,
}

/// What is promised of the first row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The row that it is measured against; `None`: the figure itself.
    pub(super) against: Option<String>,
    /// The most that ours may be: of the other row's, or in the comparison's unit.
    pub(super) at_most: f64,
    /// Whether the bench fails when it is missed. One that a noisy machine can miss is only reported.
    pub(super) binding: bool,
}

/// Somebody who takes part: does the thing once, all preparation apart, and says what it took.
pub(super) struct Contestant<'a> {
    /// Whose row it is.
    pub(super) name: String,
    /// Does it, and returns the figure.
    pub(super) turn: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Contestant<'a> {
    /// One that takes its turns by `turn`.
    pub(super) fn new(name: impl Into<String>, turn: impl FnMut() -> Result<f64> + 'a) -> Self {
        Self { name: name.into(), turn: Box::new(turn) }
    }
}

/// Has everybody take turns: `warm_ups` that do not count, then `rounds`. Each round begins with another, so that nobody always
/// comes after the same.
///
/// # Errors
/// The first one's.
pub(super) fn take_turns(
    warm_ups: usize,
    rounds: usize,
    contestants: &mut [Contestant<'_>],
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = contestants.iter().map(|who| Row::new(&who.name, [])).collect();
    let count = contestants.len();
    for round in 0..warm_ups + rounds {
        for at in 0..count {
            let number = (round + at) % count;
            let (Some(who), Some(row)) = (contestants.get_mut(number), rows.get_mut(number)) else {
                continue;
            };
            let figure = (who.turn)().with_context(|| format!("{}, round {}", who.name, round + 1))?;
            let counts = round >= warm_ups;
            output::note(format!(
                "  {}: {}{}",
                who.name,
                self::figure(figure),
                if counts { "" } else { ", to warm up" }
            ));
            if counts {
                row.rounds.push(figure);
            }
        }
    }
    Ok(rows)
}

impl Row {
    /// A row of known figures.
    pub(super) fn new(name: impl Into<String>, rounds: impl Into<Vec<f64>>) -> Self {
        Self { name: name.into(), rounds: rounds.into() }
    }

    /// The figure in the middle.
    pub(super) fn median(&self) -> f64 {
        median(&self.rounds)
    }
}

impl Target {
    /// That ours is at most `at_most` of `against`'s.
    pub(super) fn ratio(against: impl Into<String>, at_most: f64) -> Self {
        Self { against: Some(against.into()), at_most, binding: false }
    }

    /// That ours is at most `at_most`.
    pub(super) fn value(at_most: f64) -> Self {
        Self { against: None, at_most, binding: false }
    }

    /// The same, and the bench fails when it is missed.
    pub(super) fn binding(self) -> Self {
        Self { binding: true, ..self }
    }
}

impl Comparison {
    /// A comparison of times, in seconds.
    pub(super) fn of_seconds(bench: &str, case: impl Into<String>, rows: Vec<Row>) -> Self {
        Self::new(bench, case, "s", false, rows)
    }

    /// A comparison of short times.
    pub(super) fn of_milliseconds(bench: &str, case: impl Into<String>, rows: Vec<Row>) -> Self {
        Self::new(bench, case, "ms", false, rows)
    }

    /// A comparison of memory, in MB, which depends on when garbage was collected.
    pub(super) fn of_memory(bench: &str, case: impl Into<String>, rows: Vec<Row>) -> Self {
        Self::new(bench, case, "MB", false, rows)
    }

    /// A comparison of what is the same on every machine.
    pub(super) fn of_portable(bench: &str, case: impl Into<String>, unit: &str, rows: Vec<Row>) -> Self {
        Self::new(bench, case, unit, true, rows)
    }

    fn new(bench: &str, case: impl Into<String>, unit: &str, portable: bool, rows: Vec<Row>) -> Self {
        let (targets, left_out) = (Vec::new(), Vec::new());
        let (bench, unit) = (bench.to_owned(), unit.to_owned());
        Self { bench, case: case.into(), unit, portable, rows, targets, left_out }
    }

    /// The same with what is promised.
    #[must_use]
    pub(super) fn promising(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        self.targets.extend(targets);
        self
    }

    /// The same with those who could not take part.
    #[must_use]
    pub(super) fn without(mut self, left_out: impl IntoIterator<Item = String>) -> Self {
        self.left_out.extend(left_out);
        self
    }

    /// Ours in parts of theirs, the median over the rounds; `None` for ours itself, and where either has no figure but 0.
    pub(super) fn ratio(&self, name: &str) -> Option<f64> {
        let (ours, others) = self.rows.split_first()?;
        let theirs = others.iter().find(|row| row.name == name)?;
        let ratio = if ours.rounds.len() == theirs.rounds.len() {
            let both = ours.rounds.iter().zip(&theirs.rounds);
            median(&both.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
        } else {
            ours.median() / theirs.median()
        };
        ratio.is_finite().then_some(ratio)
    }

    /// What a target is about, and whether it is met; `None` where the other row is left out.
    fn found(&self, target: &Target) -> Option<(f64, bool)> {
        let found = match &target.against {
            Some(name) => self.ratio(name)?,
            None => self.rows.first()?.median(),
        };
        Some((found, found <= target.at_most))
    }

    fn promise(&self, row: &Row) -> String {
        let is_ours = self.rows.first().is_some_and(|ours| ours.name == row.name);
        let about = |target: &&Target| match &target.against {
            Some(name) => *name == row.name,
            None => is_ours,
        };
        let said = self.targets.iter().filter(about).filter_map(|target| {
            let (_, met) = self.found(target)?;
            Some(format!("at most {}: {}", figure(target.at_most), if met { "met" } else { "missed" }))
        });
        said.collect::<Vec<_>>().join("; ")
    }
}

impl Report {
    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// When the file is no report.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a report; errors name it as `from`.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn parse(text: &str, from: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("{from} has no report of a bench"))
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json()?)? + "\n";
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// With the medians and the ratios, for whoever has no use for the rounds.
    fn to_json(&self) -> Result<Value> {
        let mut report = serde_json::to_value(self)?;
        for (number, comparison) in self.comparisons.iter().enumerate() {
            for (at, row) in comparison.rows.iter().enumerate() {
                let Some(Value::Object(found)) =
                    report.pointer_mut(&format!("/comparisons/{number}/rows/{at}"))
                else {
                    continue;
                };
                found.insert("median".to_owned(), json!(row.median()));
                found.insert("ours_to_theirs".to_owned(), json!(comparison.ratio(&row.name)));
            }
        }
        Ok(report)
    }

    /// One Markdown table of everything, and below it who was left out.
    pub(super) fn table(&self) -> String {
        let mut table =
            "| bench | case | who | median | ours ÷ theirs | promised |\n|---|---|---|--:|--:|---|"
                .to_owned();
        for comparison in &self.comparisons {
            for (at, row) in comparison.rows.iter().enumerate() {
                let (bench, case) =
                    if at == 0 { (comparison.bench.as_str(), comparison.case.as_str()) } else { ("", "") };
                let ratio = comparison.ratio(&row.name).map(figure).unwrap_or_default();
                let (name, median, promise) = (&row.name, figure(row.median()), comparison.promise(row));
                // OK because writing to a String does not fail.
                let _ = write!(
                    table,
                    "\n| {bench} | {case} | {name} | {median} {} | {ratio} | {promise} |",
                    comparison.unit
                );
            }
        }
        for comparison in &self.comparisons {
            for who in &comparison.left_out {
                let _ = write!(table, "\nLeft out of {}, {}: {who}", comparison.bench, comparison.case);
            }
        }
        table
    }

    /// What was promised for certain and is missed.
    pub(super) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for comparison in &self.comparisons {
            for target in comparison.targets.iter().filter(|target| target.binding) {
                if let Some((found, false)) = comparison.found(target) {
                    let of = target.against.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
                    broken.push(format!(
                        "{}, {}: {} {}{of}, at most {}",
                        comparison.bench,
                        comparison.case,
                        figure(found),
                        if target.against.is_some() { "" } else { &comparison.unit },
                        figure(target.at_most)
                    ));
                }
            }
        }
        broken
    }

    /// Where ours is worse than in `base` by more than `tolerance`, a part of what it was: the ratios to the others, and of what
    /// is the same on every machine the figure itself. `Err` when the two have nothing in common, since that shows nothing.
    ///
    /// # Errors
    /// As said.
    pub(super) fn regressions(&self, base: &Self, tolerance: f64) -> Result<Vec<String>> {
        let (mut compared, mut worse) = (0, Vec::new());
        for now in &self.comparisons {
            let same = |then: &&Comparison| then.bench == now.bench && then.case == now.case;
            let Some(then) = base.comparisons.iter().find(same) else { continue };
            let mut check = |what: &str, found: Option<f64>, before: Option<f64>| {
                let (Some(found), Some(before)) = (found, before) else { return };
                compared += 1;
                if found > before * (1.0 + tolerance) {
                    let (found, before) = (figure(found), figure(before));
                    worse.push(format!("{}, {}: {what} {found}, was {before}", now.bench, now.case));
                }
            };
            for row in now.rows.iter().skip(1) {
                let what = format!("ours ÷ {}", row.name);
                check(&what, now.ratio(&row.name), then.ratio(&row.name));
            }
            if now.portable && then.portable {
                check(&now.unit, now.rows.first().map(Row::median), then.rows.first().map(Row::median));
            }
        }
        anyhow::ensure!(compared > 0, "The two reports have nothing to compare.");
        Ok(worse)
    }
}

/// The value in the middle; of an even number the mean of the two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) && half > 0 { f64::midpoint(at(half - 1), at(half)) } else { at(half) }
}

/// With as many digits as are worth reading: three, and every one before the point, in groups.
pub(super) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, decimals)| (whole, format!(".{decimals}")));
    grouped(whole) + &rest
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        let left = digits.len() - at;
        if at > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ours: [f64; 3], theirs: [f64; 3]) -> Report {
        let rows = vec![Row::new("ours", ours), Row::new("theirs", theirs)];
        let comparison = Comparison::of_seconds("gone", "10 keys", rows);
        let promised = [Target::ratio("theirs", 0.8), Target::ratio("absent", 1.0)];
        Report { comparisons: vec![comparison.promising(promised).without(["rclone: not here".to_owned()])] }
    }

    #[test]
    fn a_slow_minute_of_the_machine_does_not_change_the_ratio() {
        let quiet = report([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]);
        let noisy = report([1.0, 7.0, 9.0], [2.0, 14.0, 18.0]);
        assert_eq!(quiet.comparisons[0].ratio("theirs"), Some(0.5));
        assert_eq!(noisy.comparisons[0].ratio("theirs"), Some(0.5));
        assert_eq!(noisy.comparisons[0].ratio("ours"), None);
    }

    #[test]
    fn everybody_has_the_same_number_of_turns_and_another_begins_each_round() {
        let order = std::cell::RefCell::new(String::new());
        let mut contestants = ["a", "b", "c"].map(|name| {
            let order = &order;
            let mut turns = 0.0;
            Contestant::new(name, move || {
                order.borrow_mut().push_str(name);
                turns += 1.0;
                Ok(turns)
            })
        });
        let rows = take_turns(1, 2, &mut contestants).unwrap();
        drop(contestants);
        assert_eq!(order.into_inner(), "abcbcacab");
        assert!(rows.iter().all(|row| row.rounds == [2.0, 3.0]));
    }

    #[test]
    fn the_table_says_what_is_met_what_is_missed_and_who_is_not_there() {
        let table = report([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]).table();
        assert!(table.contains("| gone | 10 keys | ours | 1.00 s |  |  |"), "{table}");
        assert!(table.contains("|  |  | theirs | 2.00 s | 0.500 | at most 0.800: met |"), "{table}");
        assert!(table.ends_with("Left out of gone, 10 keys: rclone: not here"), "{table}");
        assert!(report([2.0; 3], [2.0; 3]).table().contains("1.00 | at most 0.800: missed |"));
    }

    #[test]
    fn only_a_binding_promise_can_be_broken() {
        let mut missed = report([2.0; 3], [2.0; 3]);
        assert!(missed.broken_promises().is_empty());
        missed.comparisons[0].targets[0].binding = true;
        missed.comparisons[0].targets.push(Target::value(1.5).binding());
        assert_eq!(missed.broken_promises().len(), 2);
    }

    #[test]
    fn json_that_was_written_is_read_back_with_medians_for_those_who_want_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let report = report([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]);
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json.pointer("/comparisons/0/rows/1/median"), Some(&json!(4.0)));
        assert_eq!(json.pointer("/comparisons/0/rows/1/ours_to_theirs"), Some(&json!(0.5)));
    }

    #[test]
    fn a_machine_twice_as_slow_is_no_regression_and_a_worse_ratio_is_one() {
        let base = report([1.0; 3], [2.0; 3]);
        assert!(report([2.0; 3], [4.0; 3]).regressions(&base, 0.25).unwrap().is_empty());
        assert!(report([1.2; 3], [2.0; 3]).regressions(&base, 0.25).unwrap().is_empty());
        let worse = report([1.3; 3], [2.0; 3]).regressions(&base, 0.25).unwrap();
        assert_eq!(worse, ["gone, 10 keys: ours ÷ theirs 0.650, was 0.500"]);
        assert!(Report::default().regressions(&base, 0.25).is_err());
    }

    #[test]
    fn what_is_the_same_on_every_machine_is_compared_by_itself() {
        let of = |bytes: f64| {
            let rows = vec![Row::new("ours", [bytes])];
            Report { comparisons: vec![Comparison::of_portable("start", "wasm", "KB", rows)] }
        };
        assert!(of(105.0).regressions(&of(100.0), 0.1).unwrap().is_empty());
        assert_eq!(of(115.0).regressions(&of(100.0), 0.1).unwrap(), ["start, wasm: KB 115, was 100"]);
    }

    #[test]
    fn figures_have_three_digits_or_all_before_the_point() {
        let shown = [0.0, 0.0321, 1.234, 12.34, 123.4, 1_234_567.0, -1234.0].map(figure);
        assert_eq!(shown, ["0", "0.032", "1.23", "12.3", "123", "1,234,567", "-1,234"]);
    }
}
