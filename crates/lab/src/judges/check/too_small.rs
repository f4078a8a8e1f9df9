//! What to ask for in place of a response that is too small to be cut.

use super::report::CheckReport;
use super::trial::TrialOutcome;
use rstlab_cli::grouped;

/// A response is rarely cut on one machine if it is smaller.
const LARGE: u64 = 16 * 1024;

/// One sentence for all scenarios that can't tell because the path's response is small; `None` if it is large, or if
/// there are no such scenarios.
pub(super) fn too_small(report: &CheckReport) -> Option<String> {
    let bytes = report.plain.body_bytes.filter(|bytes| *bytes < LARGE)?;
    let scenarios = report.scenarios.iter().filter(|one| one.is_too_small());
    let names: Vec<_> = scenarios.clone().map(|one| one.name).collect();
    let clients = scenarios.flat_map(|one| &one.clients);
    let resets: u64 = clients
        .map(|one| one.counts.outcomes.of(TrialOutcome::WholeThenReset))
        .sum();
    (!names.is_empty()).then(|| {
        format!(
            "Cannot tell in {}: connections are reset ({}), but the response of {} bytes fits the socket buffer, where \
             no reset can take it. {}",
            names.join(", "),
            grouped(resets),
            grouped(bytes),
            ask_for(report.plain.status)
        )
    })
}

fn ask_for(status: u16) -> String {
    let large = "a path whose response is over 16 KiB";
    match status {
        300..=399 => {
            format!("The answer is a redirect ({status}): ask for where it leads to, and {large}.")
        }
        401 | 403 => {
            format!(
                "The answer is a refusal ({status}): give credentials with --header, and ask for {large}."
            )
        }
        404 | 410 => format!("There is nothing at this path ({status}): ask for {large}."),
        400..=499 => format!(
            "The answer is a refusal ({status}): see --method and --header, and ask for {large}."
        ),
        500..=599 => {
            format!("The server failed ({status}): ask for a path that works, and {large}.")
        }
        _ => format!("Ask for {large}."),
    }
}
