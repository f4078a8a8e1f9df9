use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rstlab_wire::close::Peer;
use rstlab_witness::{
    Account, Evidence, KERNEL_SPEAKS, Lane, Record, ServerSide, Side, Watch, Witness,
};
use tokio_util::sync::CancellationToken;

use crate::{Answer, Kind, Mode, Summary};

/// How long bytes may take that the client had announced and not sent: they make the kernel send a RST.
const BODY_COMES: Duration = Duration::from_secs(1);

/// One connection, and whoever can tell why it ends as it does.
pub(crate) struct Case {
    pub(crate) witness: Witness,
    pub(crate) watch: Watch,
    /// Our own end.
    pub(crate) server: io::Result<SocketAddr>,
    pub(crate) client: SocketAddr,
    pub(crate) mode: Mode,
}

impl Case {
    /// Logs the one line about a connection, with the verdict if it was reset, and keeps its record.
    pub(crate) async fn tell(self, summary: &Summary, stop: &CancellationToken) {
        let Some(Answer { status, kind }) = summary.answer else {
            let head_bytes = summary.head_bytes;
            tracing::debug!(peer = %self.client, head_bytes, "closed without a request");
            return;
        };
        let status = status.as_u16();
        if kind == Kind::Health {
            tracing::debug!(peer = %self.client, status, "health check");
            return;
        }
        let record = self.examine(summary, kind, stop).await;
        // A connection that may be reset later, or may have been without our seeing it, has a record and no verdict.
        let judged = record
            .as_ref()
            .filter(|record| record.evidence.is_conclusive());
        let verdict = judged.map(|record| &record.verdict);
        let closed = summary.closed;
        tracing::info!(
            peer = %self.client,
            mode = self.mode.as_str(),
            status,
            head_bytes = summary.head_bytes,
            body_bytes = summary.body_bytes,
            unread_bytes = closed.unread_bytes,
            unsent_bytes = closed.unsent_bytes,
            lingered_bytes = closed.lingered_bytes,
            peer_state = closed.peer.as_str(),
            cause = verdict.map(|it| display(it.cause)),
            known = verdict.map(|it| display(it.known)),
            sent_by = verdict.and_then(|it| it.sent_by).map(name_of).map(display),
            reason = verdict.and_then(|it| it.reason.as_ref()).map(display),
            disagreement = verdict.and_then(|it| it.disagreement.as_deref()),
            "closed"
        );
        if let Some(record) = record {
            self.witness.keep(record);
        }
    }

    /// The record of a connection that was reset or cut; `None` of any other.
    async fn examine(
        &self,
        summary: &Summary,
        kind: Kind,
        stop: &CancellationToken,
    ) -> Option<Record> {
        let server = *self.server.as_ref().ok()?;
        let cut = kind == Kind::Response && !summary.response_whole;
        let side = ServerSide {
            closed: summary.closed,
            linger_zero: self.mode == Mode::Abort && kind == Kind::Response,
            killed: self.mode == Mode::Kill && kind == Kind::Response,
            response_whole: !cut,
        };
        // A close that sends a RST, as far as it is seen from here (`tcp_close`).
        let resets = side.linger_zero || side.closed.unread_bytes > 0;
        let may_be_reset = !summary.request_whole || side.closed.peer == Peer::Reset;
        let wanted = self.witness.wants_everything();
        if !resets && !cut && !may_be_reset && !wanted {
            return None;
        }
        self.witness.tell(server, self.client, side);
        let patience = if !self.witness.sees_resets() {
            Duration::ZERO
        } else if resets || side.closed.peer == Peer::Reset {
            KERNEL_SPEAKS
        } else if may_be_reset && !stop.is_cancelled() {
            BODY_COMES
        } else {
            Duration::ZERO
        };
        let account = Account {
            lane: Lane::Upstream,
            request: None,
            outcome: None,
            evidence: Evidence {
                server: Some(side),
                counted: match self.watch.end() {
                    Some(window) => window.ended().counted().await,
                    None => None,
                },
                ..Evidence::default()
            },
            head_bytes: summary.head_bytes,
            events: Vec::new(),
        };
        let examined = self
            .witness
            .examine(&self.watch, server, self.client, account, patience);
        let record = examined.await;
        // What nobody saw did not happen, if somebody would have.
        let conclusive = record.evidence.is_conclusive();
        (conclusive || wanted || !self.witness.sees_resets()).then_some(record)
    }
}

/// The ends of a connection, as people who read an upstream's log call them.
fn name_of(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "upstream",
    }
}
