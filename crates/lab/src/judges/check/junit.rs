//! A check's verdicts as JUnit XML, for CI systems.

use quick_junit::{NonSuccessKind, Report as Junit, TestCase, TestCaseStatus, TestSuite};

use super::fail_on::FailOn;
use super::report::CheckReport;
use super::verdict::CheckVerdict;

/// The verdicts as JUnit XML: each scenario is a test, and a scenario that can't tell is a skipped test.
pub(super) fn junit(url: &str, report: &CheckReport, fail_on: FailOn) -> anyhow::Result<String> {
    let mut suite = TestSuite::new(url);
    for scenario in &report.scenarios {
        let mut status = if fail_on.fails(report, scenario) {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(scenario.rule);
            status
        } else if scenario.verdict == CheckVerdict::CannotTell {
            TestCaseStatus::skipped()
        } else {
            TestCaseStatus::success()
        };
        if !matches!(status, TestCaseStatus::Success { .. }) {
            let severity = scenario
                .severity
                .map(|worst| format!("{}: ", worst.as_ref()));
            status.set_message(severity.unwrap_or_default() + &scenario.sentence);
        }
        let mut case = TestCase::new(scenario.name, status);
        case.set_classname("rstlab.check");
        case.set_system_out(format!(
            "{} ({})\n{}",
            scenario.about, scenario.rule, scenario.sentence
        ));
        suite.add_test_case(case);
    }
    let mut junit = Junit::new("rstlab check");
    junit.add_test_suite(suite);
    Ok(junit.to_string()?)
}
