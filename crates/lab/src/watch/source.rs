use std::fmt;

use anyhow::{Context as _, anyhow};
use rstlab_witness::{Level, Lost};

use super::by_kernel::ByKernel;
use super::by_packets::ByPackets;
use super::{Config, Record, note};

/// Who tells of the resets.
pub(super) enum Source {
    Kernel(Box<ByKernel>),
    Packets(Box<ByPackets>),
}

/// What should be in the output, and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Of the kernel's trace.
    Kernel {
        /// Events that the kernel could not keep for us; only it knows which.
        lost_events: u64,
        /// Lines that made no sense.
        bad_lines: u64,
    },
    /// Of the capture.
    Packets(Lost),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel {
                lost_events,
                bad_lines,
            } => write!(
                f,
                "lost events: {lost_events}, unreadable lines: {bad_lines}"
            ),
            Self::Packets(Lost { packets, resets }) => {
                write!(f, "lost resets: {resets}, lost other packets: {packets}")
            }
        }
    }
}

impl Source {
    /// The one that is wanted, or the strongest that works; says which and why not more.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let kernel = || ByKernel::open(&config.ports).map(|it| Self::Kernel(Box::new(it)));
        let packets = || ByPackets::open(&config.ports).map(|it| Self::Packets(Box::new(it)));
        let does_not_work = |level| format!("--witness={level} does not work here");
        let source = match config.witness {
            Some(Level::Packets) => packets().with_context(|| does_not_work(Level::Packets))?,
            Some(_) => kernel().with_context(|| does_not_work(Level::Kernel))?,
            None => kernel().or_else(|no_kernel| {
                let no_kernel = anyhow::Error::from(no_kernel);
                let source = packets().map_err(|no_packets| {
                    let no_packets = anyhow::Error::from(no_packets);
                    anyhow!("no reset can be seen; kernel: {no_kernel:#}; packets: {no_packets:#}")
                })?;
                note(&format!(
                    "by packets; the kernel cannot be asked: {no_kernel:#}"
                ));
                anyhow::Ok(source)
            })?,
        };
        source.note_limits();
        Ok(source)
    }

    fn note_limits(&self) {
        match self {
            Self::Kernel(kernel) => kernel.note_limits(),
            Self::Packets(_) => note(
                "packets show this network namespace only, RSTs that it receives too; they name no process, but \
                 who listens on the port is told if /proc shows it. A close with unread bytes is inferred: \
                 SO_LINGER 0 looks alike",
            ),
        }
    }

    /// Waits until something has happened, and adds the resets that can be told now, perhaps none. Nothing is lost if
    /// the future is dropped.
    pub(super) async fn next(&mut self, records: &mut Vec<Record>) -> anyhow::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.next(records).await,
            Self::Packets(packets) => packets.next(records).await,
        }
    }

    pub(super) fn missing(&self) -> Missing {
        match self {
            Self::Kernel(kernel) => kernel.missing(),
            Self::Packets(packets) => packets.missing(),
        }
    }

    /// Stops, and adds what happened until now.
    pub(super) fn finish(self, records: &mut Vec<Record>) -> anyhow::Result<Missing> {
        match self {
            Self::Kernel(kernel) => kernel.finish(records),
            Self::Packets(packets) => Ok(packets.finish(records)),
        }
    }
}
