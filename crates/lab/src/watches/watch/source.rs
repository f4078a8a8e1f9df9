//! The source of the resets: the kernel, or the packets.

use anyhow::{Context as _, anyhow};
use rstlab_witness::Level;

use super::args::WatchConfig;
use super::by_kernel::ByKernel;
use super::by_packets::ByPackets;
use super::missing::Missing;
use super::note::note;
use super::watched_reset::WatchedReset;

/// Who tells of the resets.
pub(super) enum Source {
    Kernel(Box<ByKernel>),
    Packets(Box<ByPackets>),
}

impl Source {
    /// Opens the source that is wanted, or the strongest that works; notes which, and why no stronger one.
    pub(super) fn open(config: &WatchConfig) -> anyhow::Result<Self> {
        let WatchConfig {
            ports,
            witness,
            http,
            ..
        } = config;
        let kernel = || ByKernel::open(ports, *http).map(|it| Self::Kernel(Box::new(it)));
        let packets = || ByPackets::open(ports, *http).map(|it| Self::Packets(Box::new(it)));
        let does_not_work = |level| format!("--witness={level} does not work here");
        let source = match witness {
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
    pub(super) async fn next(&mut self, resets: &mut Vec<WatchedReset>) -> anyhow::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.next(resets).await,
            Self::Packets(packets) => packets.next(resets).await,
        }
    }

    pub(super) fn missing(&self) -> Missing {
        match self {
            Self::Kernel(kernel) => kernel.missing(),
            Self::Packets(packets) => packets.missing(),
        }
    }

    /// Stops, and adds the resets until now.
    pub(super) async fn finish(self, resets: &mut Vec<WatchedReset>) -> anyhow::Result<Missing> {
        match self {
            Self::Kernel(kernel) => kernel.finish(resets).await,
            Self::Packets(packets) => Ok(packets.finish(resets)),
        }
    }
}
