//! `rstlab watch`: stands beside any server on this machine and says of each RST why it was sent, as the kernel tells
//! it or as the packets show it.

mod args;
mod by_kernel;
mod by_packets;
mod record;
mod source;
mod text;

use std::fmt;
use std::io::{self, Write as _};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::wrapped::wrapped;
pub use args::{Args, Config, execute};
pub use record::{Owner, Process, Record};
pub use source::Missing;
use source::Source;

/// Time to write what was seen before the end was asked for; then whoever reads our output reads no more.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// What a watch has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// RSTs that ended a connection.
    pub resets: u64,
    /// RSTs for connections that had already been reset.
    pub echoes: u64,
    /// What should be there too.
    pub missing: Missing,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resets,
            echoes,
            missing,
        } = self;
        write!(f, "resets: {resets}, echoes: {echoes}, {missing}")
    }
}

/// Writes each reset to `out`, until `stop`, the end of the duration, or the last of the count. Notes go to standard
/// error.
///
/// # Errors
/// Neither the kernel nor the packets can be asked, or not the one that is wanted, or `out` cannot be written to; that
/// nobody reads it any more is not an error.
pub async fn run(
    config: &Config,
    stop: &CancellationToken,
    out: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<Summary> {
    let mut source = Source::open(config)?;
    note(&format!("watching {}", config.ports_text()));
    let end = config.duration.map(|duration| Instant::now() + duration);
    let ended = || async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = at(end) => {}
        }
    };
    let mut watch = Watch::new(config);
    let mut records = Vec::new();
    while !watch.is_done() {
        tokio::select! {
            biased;
            () = ended() => break,
            next = source.next(&mut records) => next?,
        }
        let text = watch.text(&mut records);
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
    let missing = source.finish(&mut records)?;
    let last = timeout(LAST_WRITE, write(out, &watch.text(&mut records))).await;
    nobody_reads(last.unwrap_or(Ok(())))?;
    Ok(watch.summary(missing))
}

/// Writes a note for the user, who may not be there to read it.
fn note(text: &str) {
    let _ = io::stderr().write_all(wrapped(text, "rstlab watch: ", text::INDENT).as_bytes());
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
struct Watch<'a> {
    config: &'a Config,
    resets: u64,
    echoes: u64,
}

impl<'a> Watch<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            resets: 0,
            echoes: 0,
        }
    }

    fn is_done(&self) -> bool {
        let told = self.resets + self.echoes;
        self.config.count.is_some_and(|count| told >= count)
    }

    /// The records as they are to be printed, up to the count.
    fn text(&mut self, records: &mut Vec<Record>) -> String {
        let mut text = String::new();
        for record in records.drain(..) {
            if self.is_done() {
                break;
            }
            match record.cause {
                Some(_) => self.resets += 1,
                None => self.echoes += 1,
            }
            text += &if self.config.json {
                record.json()
            } else {
                record.text()
            };
        }
        text
    }

    fn summary(&self, missing: Missing) -> Summary {
        Summary {
            resets: self.resets,
            echoes: self.echoes,
            missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstlab_witness::Lost;

    use super::text::tests::record;
    use super::*;

    #[test]
    fn no_more_than_the_count() {
        let config = Config {
            ports: Vec::new(),
            witness: None,
            json: true,
            count: Some(3),
            duration: None,
        };
        let mut watch = Watch::new(&config);
        let mut text = |count| watch.text(&mut vec![record(); count]).lines().count();
        assert_eq!([text(2), text(10)], [2, 1]);
        assert!(watch.is_done());
        let missing = Missing::Packets(Lost::default());
        assert_eq!(
            watch.summary(missing).to_string(),
            "resets: 3, echoes: 0, lost resets: 0, lost other packets: 0"
        );
    }
}
