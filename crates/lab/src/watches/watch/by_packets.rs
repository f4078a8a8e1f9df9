//! Resets as a capture shows them.

use std::net::SocketAddr;

use anyhow::Context as _;
use rstlab_witness::{CapturedReset, CapturedResets, Lost, OwnAddresses, Owners, Unavailable};

use super::missing::Missing;
use super::note::note;
use super::watched_reset::WatchedReset;

/// Resets as a capture shows them.
pub(super) struct ByPackets {
    captured: CapturedResets,
    owners: Owners,
    own: OwnAddresses,
    lost: Lost,
    /// Whether the requests are to be told.
    http: bool,
}

impl ByPackets {
    pub(super) fn open(ports: &[u16], http: bool) -> Result<Self, Unavailable> {
        Ok(Self {
            captured: CapturedResets::open(ports)?,
            owners: Owners::in_this_namespace(),
            own: OwnAddresses::default(),
            lost: Lost::default(),
            http,
        })
    }

    pub(super) async fn next(&mut self, resets: &mut Vec<WatchedReset>) -> anyhow::Result<()> {
        let first = self.captured.next().await;
        let mut captured = vec![first.context("the capture of packets has failed")?];
        self.captured.ready(&mut captured);
        self.add(&captured, resets);
        Ok(())
    }

    pub(super) fn missing(&self) -> Missing {
        Missing::Packets(self.lost)
    }

    pub(super) fn finish(mut self, resets: &mut Vec<WatchedReset>) -> Missing {
        let mut captured = Vec::new();
        self.captured.finish(&mut captured);
        self.add(&captured, resets);
        self.missing()
    }

    fn add(&mut self, captured: &[CapturedReset], resets: &mut Vec<WatchedReset>) {
        let (lost, known) = (self.captured.lost(), self.lost);
        if lost.resets > known.resets {
            let more = lost.resets - known.resets;
            note(&format!(
                "{more} resets came faster than they could be taken: they are missing here"
            ));
        }
        if known.packets == 0 && lost.packets > 0 {
            note(
                "packets come faster than they can be taken: a cause that they would prove is inferred",
            );
        }
        self.lost = lost;
        for reset in captured {
            let owner_of = |from: SocketAddr| {
                let is_here = self.own.has(from.ip());
                is_here.then(|| self.owners.of(from)).flatten()
            };
            resets.push(WatchedReset::of_packet(reset, self.http, owner_of));
        }
    }
}
