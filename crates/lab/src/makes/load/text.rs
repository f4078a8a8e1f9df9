//! A load's report as text.

use rstlab_cli::grouped;
use std::fmt::{self, Display, Formatter};

use super::report::{Cuts, Latency, LoadReport};
use crate::shared::color::{Tone, toned};

/// Tones of the counts that are not zero.
const TONES: [(&str, Tone); 6] = [
    ("whole", Tone::Good),
    ("truncated", Tone::Bad),
    ("no response", Tone::Bad),
    ("refused", Tone::Bad),
    ("timeout", Tone::Bad),
    ("bad response", Tone::Bad),
];

/// A load's report, in lines of at most 80 columns.
pub(super) struct LoadText<'a>(pub(super) &'a LoadReport);

impl Display for LoadText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let rate = report.requests as f64 / report.seconds.max(f64::MIN_POSITIVE);
        let requests = grouped(report.requests);
        let seconds = report.seconds;
        writeln!(
            f,
            "{requests} requests in {seconds:.2} s, {rate:.0} a second"
        )?;
        if report.interrupted {
            f.write_str("interrupted before the plan was done\n")?;
        }
        f.write_str("\n")?;

        let statuses = format!(
            "2xx/3xx {}, 4xx {}, 5xx {}",
            grouped(report.status_2xx_3xx),
            grouped(report.status_4xx),
            grouped(report.status_5xx)
        );
        line(f, "whole", report.whole, &statuses)?;
        line(
            f,
            "truncated",
            report.truncated.total(),
            &cuts(report.truncated),
        )?;
        line(
            f,
            "no response",
            report.no_response.total(),
            &cuts(report.no_response),
        )?;
        line(f, "refused", report.refused, "")?;
        line(f, "timeout", report.timeouts, "")?;
        line(f, "bad response", report.bad_responses, "")?;
        f.write_str("\n")?;
        let harmless = format!("{} of them harmless", grouped(report.harmless_resets));
        line(f, "resets seen", report.resets, &harmless)?;
        if report.sent_again > 0 {
            let why = "the kept connection had ended meanwhile";
            line(f, "sent again", report.sent_again, why)?;
        }
        line(f, "bytes read", report.body_bytes, "of response bodies")?;
        line(
            f,
            "bytes lost",
            report.lost_bytes,
            "announced, and did not come",
        )?;

        if let Some(latency) = report.latency_us {
            write_latency(f, latency)?;
        }
        write_failures(f, report)
    }
}

fn line(f: &mut Formatter<'_>, name: &str, count: u64, more: &str) -> fmt::Result {
    let line = format!("  {name:<12} {:>13}  {more}", grouped(count));
    let line = line.trim_end();
    match TONES.iter().find(|(one, _)| *one == name) {
        Some((_, tone)) if count > 0 => writeln!(f, "{}", toned(line, *tone)),
        _ => writeln!(f, "{line}"),
    }
}

fn cuts(cuts: Cuts) -> String {
    let mut text = format!(
        "by reset {}, EOF {}",
        grouped(cuts.by_reset),
        grouped(cuts.by_eof)
    );
    if cuts.by_error > 0 {
        text += &format!(", error {}", grouped(cuts.by_error));
    }
    text
}

fn write_latency(f: &mut Formatter<'_>, latency: Latency) -> fmt::Result {
    let Latency {
        p50,
        p90,
        p99,
        p999,
        max,
    } = latency;
    f.write_str("\nlatency of whole responses in microseconds\n ")?;
    for name in ["p50", "p90", "p99", "p99.9", "max"] {
        write!(f, " {name:>13}")?;
    }
    f.write_str("\n ")?;
    for value in [p50, p90, p99, p999, max] {
        write!(f, " {:>13}", grouped(value))?;
    }
    f.write_str("\n")
}

fn write_failures(f: &mut Formatter<'_>, report: &LoadReport) -> fmt::Result {
    if report.failures.is_empty() {
        return Ok(());
    }
    f.write_str("\nwhat failed\n")?;
    for failure in &report.failures {
        let what = match (&failure.call, failure.errno) {
            (Some(call), Some(errno)) => format!("{call}: {errno} {}", failure.error),
            _ => failure.error.clone(),
        };
        let count = grouped(failure.count);
        let line = format!(
            "{count:>7} {:<12} {:<14} {what}",
            failure.outcome, failure.phase
        );
        writeln!(f, "{}", shortened(&line))?;
        if failure.on_kept_connection > 0 {
            let kept = grouped(failure.on_kept_connection);
            writeln!(f, "{:35} {kept} of these on a kept connection", "")?;
        }
    }
    Ok(())
}

/// A line cut at 80 columns, because an error's text may have any length.
fn shortened(line: &str) -> String {
    if line.chars().count() <= 80 {
        return line.to_owned();
    }
    line.chars().take(77).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::{FailedAs, LoadFailure};
    use super::*;

    #[test]
    fn digits_come_in_groups() {
        let texts = [0, 12, 123, 1234, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "12", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        let most = 9_999_999_999;
        let cuts = Cuts {
            by_reset: 99_999_999,
            by_eof: 99_999_999,
            by_error: 99_999,
        };
        let report = LoadReport {
            requests: most,
            status_2xx_3xx: most,
            status_4xx: 99_999,
            status_5xx: 99_999,
            truncated: cuts,
            no_response: cuts,
            sent_again: 1,
            seconds: 3600.0,
            interrupted: true,
            latency_us: Some(Latency {
                p50: most,
                p90: most,
                p99: most,
                p999: most,
                max: most,
            }),
            failures: vec![LoadFailure {
                outcome: FailedAs::BadResponse,
                call: Some("writev()".to_owned()),
                errno: Some(105),
                error: "No buffer space available, and more ".repeat(3),
                phase: "after-response".to_owned(),
                count: 999_999,
                on_kept_connection: 99_999,
                lost_bytes: 0,
            }],
            ..LoadReport::default()
        };
        let text = LoadText(&report).to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "too wide:\n{line}");
            assert_eq!(line.trim_end(), line);
        }
    }
}
