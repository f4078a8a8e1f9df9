//! A table of causes: how often a cause was given which verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rstlab_witness::Cause;

/// How often resets of one cause were given which cause by a verdict.
#[derive(Default)]
pub(crate) struct CauseMatrix {
    rows: BTreeMap<String, Row>,
}

struct Row {
    is: Cause,
    told: BTreeMap<&'static str, usize>,
}

impl CauseMatrix {
    pub(crate) fn add(&mut self, row: &str, is: Cause, told: Cause) {
        let row = self.rows.entry(row.to_owned()).or_insert(Row {
            is,
            told: BTreeMap::new(),
        });
        *row.told.entry(told.as_str()).or_default() += 1;
    }

    pub(crate) fn total(&self) -> usize {
        self.rows.values().flat_map(|row| row.told.values()).sum()
    }

    pub(crate) fn off_the_diagonal(&self) -> usize {
        let off = |row: &Row| -> usize {
            let others = row
                .told
                .iter()
                .filter(|(cause, _)| **cause != row.is.as_str());
            others.map(|(_, count)| count).sum()
        };
        self.rows.values().map(off).sum()
    }
}

impl fmt::Display for CauseMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes: BTreeSet<_> = self.rows.values().flat_map(|row| row.told.keys()).collect();
        write!(f, "{:50}", "")?;
        for cause in &causes {
            write!(f, " {cause:>21}")?;
        }
        for (name, row) in &self.rows {
            write!(f, "\n{name:50}")?;
            for cause in &causes {
                write!(f, " {:>21}", row.told.get(*cause).unwrap_or(&0))?;
            }
        }
        Ok(())
    }
}
