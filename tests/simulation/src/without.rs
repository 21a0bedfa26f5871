//! What is taken out of a schedule, to see whether it fails without that too.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum as _;

use crate::fault::Fault;

/// Most deletions of a schedule.
const CASES_MAX: usize = 8;

/// What a schedule can do without, besides faults and deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Extra {
    Uploads,
    Locks,
    Cancellations,
    Redrives,
    RedrivesOfAll,
    Trespasses,
    Notices,
    SmallCalls,
    SmallPages,
    Skew,
    Windows,
}

/// A set of what is taken out of a schedule. What is left does as it did before, as far as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(u64);

impl Without {
    const ALL: usize = Fault::ALL.len() + CASES_MAX + Extra::value_variants_len();

    pub(crate) fn fault(self, fault: Fault) -> bool {
        self.has(fault as usize)
    }

    pub(crate) fn case(self, number: usize) -> bool {
        number < CASES_MAX && self.has(Fault::ALL.len() + number)
    }

    pub(crate) fn extra(self, extra: Extra) -> bool {
        self.has(Fault::ALL.len() + CASES_MAX + extra as usize)
    }

    fn has(self, at: usize) -> bool {
        self.0 >> at & 1 == 1
    }

    fn and(self, at: usize) -> Self {
        Self(self.0 | 1 << at)
    }

    /// Takes out one thing after the other, for good if `fails` without it.
    #[must_use]
    pub fn shrink(self, fails: impl Fn(Self) -> bool) -> Self {
        (0..Self::ALL).fold(self, |without, at| {
            let less = without.and(at);
            if fails(less) { less } else { without }
        })
    }

    fn names() -> Vec<String> {
        let faults = Fault::ALL.iter().map(|fault| format!("{fault:?}"));
        let cases = (0..CASES_MAX).map(|number| format!("Case{number}"));
        let extras = Extra::value_variants().iter().map(|extra| format!("{extra:?}"));
        faults.chain(cases).chain(extras).collect()
    }
}

impl Extra {
    const fn value_variants_len() -> usize {
        Self::Windows as usize + 1
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::names().into_iter().enumerate();
        let names: Vec<_> = names.filter(|(at, _)| self.has(*at)).map(|(_, name)| name).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for Without {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::names();
        text.split(',').filter(|name| !name.is_empty()).try_fold(Self::default(), |without, name| {
            let at = names.iter().position(|known| known == name);
            at.map(|at| without.and(at)).ok_or_else(|| format!("{name:?} is none of {}", names.join(",")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_reads_back_and_nothing_is_taken_out_that_matters() {
        let matters = ["AckLost", "Case1", "Skew"];
        let fails =
            |without: Without| !matters.iter().any(|name| without.to_string().split(',').any(|n| n == *name));
        let shrunk = Without::default().shrink(fails);
        assert_eq!(shrunk.to_string().parse(), Ok(shrunk));
        assert_eq!(shrunk.to_string().split(',').count(), Without::ALL - matters.len());
        assert!("Nothing".parse::<Without>().is_err());
    }
}
