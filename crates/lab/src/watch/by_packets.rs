use anyhow::Context as _;
use rstlab_witness::{
    CapturedReset, CapturedResets, Cause, Lost, OwnAddresses, Owner, Owners, Unavailable,
};

use super::source::Missing;
use super::{Record, note};

/// Resets as a capture shows them.
pub(super) struct ByPackets {
    resets: CapturedResets,
    owners: Owners,
    own: OwnAddresses,
    lost: Lost,
}

impl ByPackets {
    pub(super) fn open(ports: &[u16]) -> Result<Self, Unavailable> {
        Ok(Self {
            resets: CapturedResets::open(ports)?,
            owners: Owners::in_this_namespace(),
            own: OwnAddresses::default(),
            lost: Lost::default(),
        })
    }

    pub(super) async fn next(&mut self, records: &mut Vec<Record>) -> anyhow::Result<()> {
        let first = self.resets.next().await;
        let mut resets = vec![first.context("the capture of packets has failed")?];
        self.resets.ready(&mut resets);
        self.tell(&resets, records);
        Ok(())
    }

    pub(super) fn missing(&self) -> Missing {
        Missing::Packets(self.lost)
    }

    pub(super) fn finish(mut self, records: &mut Vec<Record>) -> Missing {
        let mut resets = Vec::new();
        self.resets.finish(&mut resets);
        self.tell(&resets, records);
        self.missing()
    }

    fn tell(&mut self, resets: &[CapturedReset], records: &mut Vec<Record>) {
        let (lost, known) = (self.resets.lost(), self.lost);
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
        for reset in resets {
            let owner = self.owner(reset);
            records.push(Record::of_packet(reset, owner));
        }
    }

    /// Who listens where it came from.
    fn owner(&mut self, reset: &CapturedReset) -> Option<Owner> {
        let from = reset.packet.from;
        // Where nobody listened, whoever does now has come since.
        let was_refused = matches!(reset.cause(), Some((Cause::Refused, _)));
        if was_refused || !self.own.has(from.ip()) {
            return None;
        }
        self.owners.of(from)
    }
}
