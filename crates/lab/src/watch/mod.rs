//! `rstlab watch`: stands beside any server on this machine and says of each RST why the kernel sent it.

mod args;
mod record;
mod text;

use std::io::{self, Write as _};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rstlab_witness::{
    BadLine, Judged, Kernel, Ledger, Line, Owners, Place, ResetEvent, Scope, monotonic_now,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use args::{Args, Config, execute};
pub use record::{Owner, Process, Record};

/// Time to write what was seen before the end was asked for; then whoever reads our output reads no more.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a watch has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// RSTs that ended a connection.
    pub resets: u64,
    /// RSTs for connections that had already been reset.
    pub echoes: u64,
    /// RSTs that the kernel could not keep for us; only it knows which.
    pub lost_events: u64,
    /// Lines of the kernel that made no sense.
    pub bad_lines: u64,
}

/// Writes each reset to `out`, until `stop`, the end of the duration, or the last of the count. Notes go to standard
/// error.
///
/// # Errors
/// The kernel cannot be asked, or `out` cannot be written to; that nobody reads it any more is not an error.
pub async fn run(
    config: &Config,
    stop: &CancellationToken,
    out: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<Summary> {
    let mut kernel = Kernel::open(Scope::Resets)
        .context("nothing can be watched without the kernel's tracepoint tcp:tcp_send_reset")?;
    if !kernel.format().has_reason() {
        note("this kernel gives no reasons (Linux 6.10 and newer do): every cause is unknown");
    } else if !kernel.format().tells_closes_apart() {
        note("this kernel does not tell one close from another (Linux 6.12 and newer do)");
    }
    note(&format!("watching {}", config.ports_text()));
    let end = config.duration.map(|duration| Instant::now() + duration);
    let ended = || async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = at(end) => {}
        }
    };
    let mut watch = Watch::new(config);
    let mut lines = Vec::new();
    while !watch.is_done() {
        tokio::select! {
            biased;
            () = ended() => break,
            read = kernel.read(&mut lines) => read.context("cannot read the trace pipe")?,
            () = watch.ledger.until_due() => {}
        }
        watch.take(&mut lines);
        watch.due();
        let text = watch.text();
        let mut writing = pin!(write(out, &text));
        let written = tokio::select! {
            written = &mut writing => written,
            () = ended() => match timeout(LAST_WRITE, &mut writing).await {
                Ok(written) => written,
                Err(_) => return Ok(watch.summary),
            },
        };
        if nobody_reads(written)? {
            return Ok(watch.summary);
        }
    }
    kernel
        .finish(&mut lines)
        .context("cannot read the trace pipe")?;
    watch.take(&mut lines);
    watch.ledger.finish(&mut watch.judged);
    let last = timeout(LAST_WRITE, write(out, &watch.text())).await;
    nobody_reads(last.unwrap_or(Ok(())))?;
    Ok(watch.summary)
}

/// Writes a note for the user, who may not be there to read it.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "rstlab watch: {text}");
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn write(out: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes()).await?;
    out.flush().await
}

fn nobody_reads(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error).context("cannot write the resets"),
    }
}

struct Watch<'a> {
    config: &'a Config,
    ledger: Ledger,
    owners: Owners,
    judged: Vec<Judged>,
    summary: Summary,
}

impl<'a> Watch<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            ledger: Ledger::default(),
            owners: Owners::default(),
            judged: Vec::new(),
            summary: Summary::default(),
        }
    }

    fn take(&mut self, lines: &mut Vec<Result<Line, BadLine>>) {
        for line in lines.drain(..) {
            match line {
                Ok(Line::Reset(event)) if self.is_watched(&event) => {
                    self.ledger.see(event, &mut self.judged);
                }
                Ok(Line::Reset(_) | Line::Close(_) | Line::Kill(_)) => {}
                Ok(Line::Lost { cpu, events }) => {
                    // At least one, where the kernel does not know how many.
                    self.summary.lost_events += events.unwrap_or(1);
                    let count = events.map_or("some".to_owned(), |count| count.to_string());
                    note(&format!(
                        "the kernel lost {count} events of CPU {cpu}: resets are missing here"
                    ));
                }
                Err(bad) => {
                    self.summary.bad_lines += 1;
                    note(&bad.to_string());
                }
            }
        }
    }

    fn is_watched(&self, event: &ResetEvent) -> bool {
        let ports = &self.config.ports;
        let ends = [Some(event.source), event.destination];
        ports.is_empty() || ends.iter().flatten().any(|end| ports.contains(&end.port()))
    }

    fn due(&mut self) {
        self.ledger.due(monotonic_now(), &mut self.judged);
    }

    fn is_done(&self) -> bool {
        let told = self.summary.resets + self.summary.echoes;
        self.config.count.is_some_and(|count| told >= count)
    }

    /// What was judged, as it is to be printed, up to the count.
    fn text(&mut self) -> String {
        // The same moment on both clocks: what they differ by is the time of day at which the machine started.
        let (mono, real) = (monotonic_now(), SystemTime::now());
        let mut text = String::new();
        for judged in std::mem::take(&mut self.judged) {
            if self.is_done() {
                break;
            }
            match judged.place {
                Place::First => self.summary.resets += 1,
                Place::Echo => self.summary.echoes += 1,
            }
            let time = real - mono.saturating_sub(judged.event.stamp.time);
            let record = Record::new(&judged, time, &mut self.owners);
            text += &if self.config.json {
                record.json()
            } else {
                record.text()
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rstlab_witness::Reason;

    use super::*;

    fn lines(count: u16) -> Vec<Result<Line, BadLine>> {
        let lines = (0..count).map(|n| {
            Line::parse(&format!(
                "  server-1  ( 1) [000] ..s2.  10.{:06}: tcp_send_reset: skbaddr=01 skaddr=01 \
                 src=127.0.0.1:80 dest=127.0.0.1:{} state=TCP_CLOSE reason=TCP_ABORT_ON_DATA",
                n,
                4000 + n
            ))
        });
        lines.collect()
    }

    fn config() -> Config {
        Config {
            ports: Vec::new(),
            json: true,
            count: None,
            duration: None,
        }
    }

    #[test]
    fn only_the_ports_that_were_asked_for() {
        let mut config = config();
        config.ports = vec![4001, 4003];
        let mut watch = Watch::new(&config);
        watch.take(&mut lines(10));
        assert_eq!(watch.text().lines().count(), 2);
        config.ports = vec![80];
        let mut watch = Watch::new(&config);
        watch.take(&mut lines(10));
        assert_eq!(watch.text().lines().count(), 10);
    }

    #[test]
    fn no_more_than_the_count() {
        let config = Config {
            count: Some(3),
            ..config()
        };
        let mut watch = Watch::new(&config);
        watch.take(&mut lines(2));
        assert_eq!((watch.text().lines().count(), watch.is_done()), (2, false));
        watch.take(&mut lines(10));
        assert_eq!((watch.text().lines().count(), watch.is_done()), (1, true));
        assert_eq!(watch.summary.resets, 3);
    }

    #[test]
    fn what_is_missing_is_counted() {
        let config = config();
        let mut watch = Watch::new(&config);
        let lines = ["CPU:0 [LOST 7 EVENTS]", "CPU:1 [LOST EVENTS]", "x"];
        watch.take(&mut lines.map(Line::parse).into());
        let summary = Summary {
            lost_events: 8,
            bad_lines: 1,
            ..Summary::default()
        };
        assert_eq!(watch.summary, summary);
    }

    #[test]
    fn an_echo_is_told_as_one() {
        let config = config();
        let mut watch = Watch::new(&config);
        let mut both = lines(1);
        both.extend(lines(1));
        if let Some(Ok(Line::Reset(echo))) = both.last_mut() {
            echo.reason = Some(Reason::NoSocket);
        }
        watch.take(&mut both);
        watch.text();
        assert_eq!((watch.summary.resets, watch.summary.echoes), (1, 1));
    }
}
