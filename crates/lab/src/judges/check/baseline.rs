//! Compares a check with an earlier one: what is fixed, what is still there, what is new.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use strum::VariantArray as _;

use super::comparison::{Change, Comparison, FailedShare, Finding, change};
use super::fail_on::FailOn;
use super::report::{CheckReport, VERSION};
use super::trial::{ConnectionUse, Model, TrialOutcome};
use super::verdict::CheckVerdict;

/// What a comparison needs of an earlier report of `check --json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Baseline {
    address: String,
    request: String,
    scenarios: Vec<BaselineScenario>,
}

#[derive(Debug, Clone, Deserialize)]
struct BaselineScenario {
    name: String,
    clients: Vec<BaselineClient>,
}

#[derive(Debug, Clone, Deserialize)]
struct BaselineClient {
    client: Model,
    connection: ConnectionUse,
    counts: BaselineCounts,
}

#[derive(Debug, Clone, Deserialize)]
struct BaselineCounts {
    trials: u64,
    outcomes: BTreeMap<String, u64>,
}

impl Baseline {
    /// Reads a report.
    ///
    /// # Errors
    /// The file can't be read, or is no report of `rstlab check --json` of this version.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        Self::parse(&text).with_context(|| format!("{name} can't be the baseline"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        const ADVICE: &str = "make a new one with `rstlab check URL --json FILE`";
        /// The versions of reports may differ in everything else.
        #[derive(Deserialize)]
        struct ReportVersion {
            version: Option<String>,
        }
        let ReportVersion { version } = serde_json::from_str(text)
            .with_context(|| format!("it is no report of `rstlab check`: {ADVICE}"))?;
        let version = version.unwrap_or_else(|| "none".to_owned());
        ensure!(
            version == VERSION,
            "the rstlab that wrote it has the version {version}, this one {VERSION}: {ADVICE}"
        );
        serde_json::from_str(text).with_context(|| format!("its fields are others: {ADVICE}"))
    }

    /// Holds a report against this baseline.
    pub(super) fn compare(&self, report: &CheckReport, fail_on: FailOn) -> Comparison {
        let mut before = self.shares(fail_on);
        let mut findings = Vec::new();
        for scenario in &report.scenarios {
            for one in &scenario.clients {
                let before = before.remove(&(scenario.name, one.connection, one.client));
                let can_tell = one.verdict != CheckVerdict::CannotTell;
                let now = share(one.counts.trials, fail_on, |outcome| {
                    one.counts.outcomes.of(outcome)
                });
                findings.extend(change(before, now, can_tell).map(|change| Finding {
                    scenario: scenario.name.to_owned(),
                    connection: one.connection,
                    client: one.client,
                    change,
                    before,
                    now: Some(now),
                }));
            }
        }
        before.retain(|_, share| share.failed > 0);
        findings.extend(
            before
                .into_iter()
                .map(|((scenario, connection, client), share)| Finding {
                    scenario: scenario.to_owned(),
                    connection,
                    client,
                    change: Change::NotTold,
                    before: Some(share),
                    now: None,
                }),
        );
        findings.sort_by_key(|finding| finding.change);
        Comparison {
            notes: self.notes(report),
            findings,
        }
    }

    /// The trials that failed, by scenario, connection and client.
    fn shares(&self, fail_on: FailOn) -> BTreeMap<(&str, ConnectionUse, Model), FailedShare> {
        let clients = self.scenarios.iter();
        let clients = clients.flat_map(|one| one.clients.iter().map(move |client| (one, client)));
        let shares = clients.map(|(scenario, one)| {
            let outcomes = &one.counts.outcomes;
            let of = |outcome: TrialOutcome| outcomes.get(outcome.as_ref()).copied();
            let share = share(one.counts.trials, fail_on, |outcome| {
                of(outcome).unwrap_or(0)
            });
            ((scenario.name.as_str(), one.connection, one.client), share)
        });
        shares.collect()
    }

    fn notes(&self, report: &CheckReport) -> Vec<String> {
        let mut notes = Vec::new();
        let mut differs = |what: &str, before: &str, now: &str| {
            if before != now {
                notes.push(format!(
                    "The baseline's {what} was {before}, and now it is {now}: if it is not the same app, make a new \
                     baseline with --json."
                ));
            }
        };
        differs("address", &self.address, &report.address);
        differs("request", &self.request, &report.request);
        notes
    }
}

fn share(trials: u64, fail_on: FailOn, count: impl Fn(TrialOutcome) -> u64) -> FailedShare {
    let fails = |one: &&TrialOutcome| fail_on.is_failure(**one);
    let failed = TrialOutcome::VARIANTS.iter().filter(fails);
    let failed = failed.map(|outcome| count(*outcome)).sum();
    FailedShare { failed, trials }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_report_of_this_version_says_what_to_do() {
        for (text, part) in [
            ("no JSON", "it is no report"),
            ("[]", "it is no report"),
            ("{}", "has the version none"),
            (r#"{"version": "0.0.1"}"#, "has the version 0.0.1"),
            (
                &format!(r#"{{"version": "{VERSION}"}}"#),
                "its fields are others",
            ),
        ] {
            let error = format!("{:#}", Baseline::parse(text).unwrap_err());
            for part in [part, "make a new one with `rstlab check URL --json FILE`"] {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
