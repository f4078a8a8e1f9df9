//! Cells and sentences of the report that text and Markdown share.

use rstlab_cli::grouped;

use super::report::{BenchFigures, BenchReport, BenchRow, BenchedCase};

/// Heads of the columns of a proxy's figures.
pub(super) const COLUMNS: [&str; 7] = [
    "proxy",
    "CPU a request",
    "of best peer",
    "requests/s",
    "p50",
    "p99",
    "memory",
];

/// The cells of a proxy in a case.
pub(super) fn row(row: &BenchRow) -> [String; 7] {
    let Some(figures) = &row.figures else {
        let mut cells = [const { String::new() }; 7];
        cells[0].clone_from(&row.proxy);
        cells[1] = "failed".to_owned();
        return cells;
    };
    [
        row.proxy.clone(),
        time(figures.cpu_us_per_request.median),
        ratio(figures),
        grouped(figures.requests_per_second.median.round() as u64),
        time(figures.p50_us.median),
        time(figures.p99_us.median),
        format!(
            "{:.1} MiB",
            figures.peak_memory_bytes.median / 1024.0 / 1024.0
        ),
    ]
}

/// The ratio to the best peer.
pub(super) fn ratio(figures: &BenchFigures) -> String {
    let ratio = figures.cpu_to_best_peer;
    ratio.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median))
}

/// A time in microseconds or, if it is long, in milliseconds.
pub(super) fn time(microseconds: f64) -> String {
    match microseconds {
        ..9_999.5 => format!("{} µs", grouped(microseconds.round() as u64)),
        ..99_950.0 => format!("{:.1} ms", microseconds / 1000.0),
        _ => format!("{} ms", grouped((microseconds / 1000.0).round() as u64)),
    }
}

/// The title of a case.
pub(super) fn title(case: &BenchedCase) -> String {
    format!("{}, {}", case.name, counted(case.workers, "worker"))
}

fn counted(count: usize, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

/// What the figures are of, and what is missing.
pub(super) fn remarks(report: &BenchReport) -> Vec<String> {
    let proxies = report.proxies.iter().map(|proxy| {
        let version = proxy.version.as_deref().unwrap_or("unknown version");
        format!("{}: {version}, {}", proxy.name, proxy.settings)
    });
    let mut remarks: Vec<_> = proxies.collect();
    remarks.extend(report.missing.iter().map(|name| {
        format!("{name} is missing: it is not in PATH (Debian has nginx and haproxy in /usr/sbin)")
    }));
    for case in &report.cases {
        for row in &case.rows {
            let problem = row.problem.as_ref();
            remarks.extend(problem.map(|text| format!("{}: {}: {text}", title(case), row.proxy)));
        }
    }
    if report.debug_build {
        remarks.push(
            "rstlab is a debug build: only a release build has figures to compare".to_owned(),
        );
    }
    remarks
}

/// When and where the figures were made.
pub(super) fn origin(report: &BenchReport) -> String {
    format!(
        "{}, Linux {}, {}, medians of {}, {:.0} s",
        report.date,
        report.kernel,
        counted(report.cores, "core"),
        counted(report.rounds, "round"),
        report.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_and_the_digits_that_fit() {
        for (microseconds, text) in [
            (0.4, "0 µs"),
            (1_157.2, "1,157 µs"),
            (9_999.6, "10.0 ms"),
            (99_960.0, "100 ms"),
            (12_345_000.0, "12,345 ms"),
        ] {
            assert_eq!(time(microseconds), text);
        }
    }
}
