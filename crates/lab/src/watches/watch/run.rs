//! Watches, and writes each reset.

use std::fmt;
use std::io::{self, Write as _};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::{block_on, stop_on_signals};
use rstlab_witness::{Advised, Place};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::args::WatchConfig;
use super::missing::Missing;
use super::note::note;
use super::source::Source;
use super::tally::Tally;
use super::text;
use super::watched_reset::WatchedReset;
use crate::shared::color::{Tone, tone_words};

/// The longest time to write the last resets when the end was asked for: the reader of the output may have stopped.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a watch has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSummary {
    /// RSTs that ended a connection.
    pub resets: u64,
    /// RSTs for connections that had already been reset.
    pub echoes: u64,
    /// How much is missing.
    pub missing: Missing,
    /// The resets by process, cause and listener.
    pub tally: Tally,
}

impl fmt::Display for WatchSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resets,
            echoes,
            missing,
            tally: _,
        } = self;
        write!(f, "resets: {resets}, echoes: {echoes}, {missing}")
    }
}

/// Watches until a signal, and sums up on standard error.
///
/// # Errors
/// As [`run`].
pub fn execute(config: &WatchConfig) -> anyhow::Result<ExitCode> {
    // A write that waits for a reader may still be under way at the end; it is left behind.
    let summary = block_on(async {
        let stop = stop_on_signals()?;
        // Without this, closing the terminal would leave the trace instance behind.
        let mut hangup = signal(SignalKind::hangup())?;
        let hung_up = stop.clone();
        tokio::spawn(async move {
            hangup.recv().await;
            hung_up.cancel();
        });
        run(config, &stop, &mut tokio::io::stdout()).await
    })?;
    note(&summary.to_string());
    // Standard error may be closed; that is not an error.
    let _ = io::stderr().write_all(summary.tally.table().as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Writes each reset to `out`, until `stop`, the end of the duration, or the last of the count. Notes go to standard
/// error.
///
/// # Errors
/// Neither the kernel's trace nor the packets are available, or not the one that is wanted, or `out` cannot be written
/// to. It is no error if the reader of `out` has gone.
pub async fn run(
    config: &WatchConfig,
    stop: &CancellationToken,
    out: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<WatchSummary> {
    let mut source = Source::open(config)?;
    note(&format!("watching {}", config.ports_text()));
    let end = config.duration.map(|duration| Instant::now() + duration);
    let ended = || async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = at(end) => {}
        }
    };
    let mut watch = WatchOutput::new(config);
    let mut resets = Vec::new();
    while !watch.is_done() {
        tokio::select! {
            biased;
            () = ended() => break,
            next = source.next(&mut resets) => next?,
        }
        let text = watch.text(&mut resets);
        let mut writing = pin!(write(out, &text));
        let written = tokio::select! {
            written = &mut writing => written,
            () = ended() => match timeout(LAST_WRITE, &mut writing).await {
                Ok(written) => written,
                Err(_) => return Ok(watch.summary(source.missing())),
            },
        };
        if nobody_reads(written)? {
            return Ok(watch.summary(source.missing()));
        }
    }
    let missing = source.finish(&mut resets).await?;
    let last = timeout(LAST_WRITE, write(out, &watch.text(&mut resets))).await;
    nobody_reads(last.unwrap_or(Ok(())))?;
    Ok(watch.summary(missing))
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

/// What has been written so far.
struct WatchOutput<'a> {
    config: &'a WatchConfig,
    resets: u64,
    echoes: u64,
    /// Causes whose advice has been given.
    advised: Advised,
    tally: Tally,
}

impl<'a> WatchOutput<'a> {
    fn new(config: &'a WatchConfig) -> Self {
        Self {
            config,
            resets: 0,
            echoes: 0,
            advised: Advised::default(),
            tally: Tally::default(),
        }
    }

    fn is_done(&self) -> bool {
        let told = self.resets + self.echoes;
        self.config.count.is_some_and(|count| told >= count)
    }

    /// The resets as they are to be printed, up to the count. The text says once for each cause what to do about it.
    fn text(&mut self, resets: &mut Vec<WatchedReset>) -> String {
        let mut text = String::new();
        for reset in resets.drain(..) {
            if self.is_done() {
                break;
            }
            match reset.place {
                Place::First => self.resets += 1,
                Place::Echo => self.echoes += 1,
            }
            self.tally.count(&reset, &self.config.ports);
            if self.config.json {
                text += &reset.json();
                continue;
            }
            // An echo has no cause of its own.
            let cause = reset.cause.map(|cause| cause.to_string());
            let tones = [(cause.as_deref().unwrap_or("RST"), Tone::Bad)];
            text += &tone_words(&text::lines(&reset, self.config.http), &tones);
            if let Some(advice) = reset.cause.and_then(|cause| self.advised.first(cause)) {
                text += &tone_words(&text::advice(advice), &[("What to do:", Tone::Strong)]);
            }
        }
        text
    }

    fn summary(&self, missing: Missing) -> WatchSummary {
        WatchSummary {
            resets: self.resets,
            echoes: self.echoes,
            missing,
            tally: self.tally.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstlab_witness::Lost;

    use super::super::text::tests::reset;
    use super::*;

    #[test]
    fn what_to_do_about_a_cause_is_said_once_and_only_in_the_text() {
        for json in [false, true] {
            let config = WatchConfig {
                ports: Vec::new(),
                witness: None,
                http: false,
                json,
                count: None,
                duration: None,
            };
            let text = WatchOutput::new(&config).text(&mut vec![reset(); 3]);
            let advice = text.matches("What to do: Let the server read").count();
            assert_eq!(advice, usize::from(!json), "{text}");
        }
    }

    #[test]
    fn no_more_than_the_count_is_written() {
        let config = WatchConfig {
            ports: Vec::new(),
            witness: None,
            http: false,
            json: true,
            count: Some(3),
            duration: None,
        };
        let mut watch = WatchOutput::new(&config);
        let mut text = |count| watch.text(&mut vec![reset(); count]).lines().count();
        assert_eq!([text(2), text(10)], [2, 1]);
        assert!(watch.is_done());
        let missing = Missing::Packets(Lost::default());
        assert_eq!(
            watch.summary(missing).to_string(),
            "resets: 3, echoes: 0, lost resets: 0, lost other packets: 0"
        );
    }
}
