//! A stream of the resets of some ports, as they are captured.

use tokio::sync::mpsc;

use super::capture::Packets;
use super::packet::Snap;
use super::reset_sender::{CapturedReset, ResetSender};
use crate::unavailable::Unavailable;

/// Bounded queue of resets; resets that find it full are lost, and counted.
const MAX_WAITING: usize = 16_384;

/// How much a capture could not take in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Lost packets: a cause that they would have shown may be missing.
    pub packets: u64,
    /// Lost resets, which have a queue of their own.
    pub resets: u64,
}

/// A stream of the resets of some ports, as they are captured.
#[derive(Debug)]
pub struct CapturedResets {
    packets: Packets,
    resets: mpsc::Receiver<CapturedReset>,
}

impl CapturedResets {
    /// Captures the TCP segments from or to `ports`, or of all ports if the list is empty; see [`Packets::open`].
    ///
    /// # Errors
    /// As [`Packets::open`].
    pub fn open(ports: &[u16]) -> Result<Self, Unavailable> {
        let (sender, resets) = mpsc::channel(MAX_WAITING);
        let packets = Packets::start(ports, Snap::Beginning, Some(ResetSender::new(sender)))?;
        Ok(Self { packets, resets })
    }

    /// The next reset, some milliseconds after it was captured; `None` if the capture has failed. Nothing is lost if
    /// the future is dropped.
    pub async fn next(&mut self) -> Option<CapturedReset> {
        self.resets.recv().await
    }

    /// Adds the resets that are ready to be taken.
    pub fn ready(&mut self, resets: &mut Vec<CapturedReset>) {
        while let Ok(reset) = self.resets.try_recv() {
            resets.push(reset);
        }
    }

    /// How much came faster than it could be taken.
    pub fn lost(&self) -> Lost {
        Lost {
            packets: self.packets.lost(),
            resets: self.packets.lost_resets(),
        }
    }

    /// Ends the capture, and adds the resets that were captured until now.
    pub fn finish(&mut self, resets: &mut Vec<CapturedReset>) {
        self.packets.end();
        self.ready(resets);
    }
}
