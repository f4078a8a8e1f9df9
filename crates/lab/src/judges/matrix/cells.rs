//! Cells and texts of the matrix that text, Markdown and HTML share.

use super::report::{Matrix, ProxyRow, ServerRow};
use crate::judges::check::{Bound, CheckReport, CheckVerdict, Drain, DrainKind};
use rstlab_cli::grouped;
use strum::VariantArray as _;

/// The mark of a verdict.
pub(super) fn mark(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Pass => "+",
        CheckVerdict::Harmless => "h",
        CheckVerdict::CannotTell => "?",
        CheckVerdict::Loses => "L",
    }
}

/// Names of the scenarios that were run, in the order of their columns.
pub(super) fn scenarios(matrix: &Matrix) -> Vec<&'static str> {
    let reports = matrix.servers.iter().filter_map(|row| row.check.as_ref());
    let first = reports.map(|report| &report.scenarios).next();
    first.into_iter().flatten().map(|one| one.name).collect()
}

/// Heads of a server's columns before those of the scenarios.
pub(super) const SERVER_COLUMNS: [&str; 5] = ["server", "version", "verdict", "lost", "reads on"];

/// Heads of a proxy's columns: name, version, and the sizes of the bodies.
pub(super) fn proxy_columns(matrix: &Matrix) -> Vec<String> {
    let reports = matrix.proxies.iter().filter_map(|row| row.through.as_ref());
    let first = reports.map(|report| &report.sizes).next();
    let sizes = first.into_iter().flatten();
    let sizes = sizes.map(|size| format!("{} B", grouped(size.body_bytes)));
    let names = ["proxy", "version"].map(str::to_owned);
    names.into_iter().chain(sizes).collect()
}

/// The cells of a server before those of the scenarios: name, version, verdict, responses lost, reads on.
pub(super) fn server(row: &ServerRow) -> [String; 5] {
    let (verdict, lost, drain) = match &row.check {
        Some(report) => (
            report.verdict.as_ref().to_owned(),
            lost(report),
            drain(&report.drain),
        ),
        None => ("not checked".to_owned(), String::new(), String::new()),
    };
    [
        row.name.clone(),
        version(row.version.as_ref()),
        verdict,
        lost,
        drain,
    ]
}

/// The cells of a proxy: name, version, and clients of each size that got the answer.
pub(super) fn proxy(row: &ProxyRow) -> Vec<String> {
    let mut cells = vec![row.name.clone(), version(row.version.as_ref())];
    match &row.through {
        Some(report) => {
            cells.extend(report.sizes.iter().map(|size| match size.clients {
                100 => size.answered.to_string(),
                clients => format!("{} of {clients}", size.answered),
            }));
        }
        None => cells.push("not checked".to_owned()),
    }
    cells
}

fn version(version: Option<&String>) -> String {
    version.map_or("?".to_owned(), Clone::clone)
}

/// Responses lost, of all.
fn lost(report: &CheckReport) -> String {
    let clients = report.scenarios.iter().flat_map(|one| &one.clients);
    let (lost, trials) = clients.fold((0, 0), |(lost, trials), client| {
        (
            lost + client.counts.outcomes.lost(),
            trials + client.counts.trials,
        )
    });
    format!("{} of {}", grouped(lost), grouped(trials))
}

/// What the server does with a body that comes after its answer.
fn drain(drain: &Drain) -> String {
    match drain.kind {
        DrainKind::ReadsFirst => "reads first".to_owned(),
        DrainKind::Aborts => "aborts".to_owned(),
        DrainKind::ResetsAtOnce => "no".to_owned(),
        DrainKind::ReadsOn => {
            let bytes = drain.bytes.map(|bound| bounded(bound, &size));
            let time = drain.milliseconds.map(|bound| bounded(bound, &seconds));
            let bounds: Vec<_> = bytes.into_iter().chain(time).collect();
            bounds.join(", ")
        }
        DrainKind::Holds => {
            let time = drain.milliseconds.map(|bound| bounded(bound, &seconds));
            format!("holds {}", time.unwrap_or_default())
        }
        DrainKind::Unknown | DrainKind::NotSearched => "?".to_owned(),
    }
}

/// A size in bytes; whole kibibytes and mebibytes are the bounds that people choose.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", grouped(bytes >> 20)),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", grouped(bytes >> 10)),
        _ => format!("{} B", grouped(bytes)),
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

fn bounded(bound: Bound, text: &dyn Fn(u64) -> String) -> String {
    match bound.less_than {
        Some(_) => text(bound.at_least),
        None => format!("> {}", text(bound.at_least)),
    }
}

/// The entries that could not be checked, and why.
pub(super) fn problems(matrix: &Matrix) -> Vec<(String, String)> {
    let servers = matrix.servers.iter().map(|row| (&row.name, &row.problem));
    let proxies = matrix.proxies.iter().map(|row| (&row.name, &row.problem));
    let both = servers.chain(proxies);
    both.filter_map(|(name, problem)| Some((name.clone(), problem.clone()?)))
        .collect()
}

/// What the marks and columns mean.
pub(super) fn legend(matrix: &Matrix) -> String {
    let marks = CheckVerdict::VARIANTS.iter();
    let marks: Vec<_> = marks
        .map(|one| format!("{} {}", mark(*one), one.as_ref()))
        .collect();
    let names: Vec<_> = scenarios(matrix)
        .iter()
        .zip(1..)
        .map(|(name, number): (_, u32)| format!("{number} {name}"))
        .collect();
    format!(
        "Marks: {}. Scenarios: {}.",
        marks.join(", "),
        names.join(", ")
    )
}

/// What the numbers of a proxy mean.
pub(super) const PROXIES: &str = "Clients that got the upstream's early answer while they uploaded, of 100 of each size \
    unless another number is said. The upstream answers 401 as soon as it has the head, and closes.";
