//! Makes a connection's end from the value that its driver returns.

use std::time::Duration;

use rstlab_wire::close::Peer;
use rstlab_wire::{Failure, Phase, StopOrder, Tape, monotonic_now};
use rstlab_witness::{
    AnswerKind, Connection, Dispatch, Ended, KERNEL_SPEAKS, Outcome, ServerSide, Teller,
    UpstreamEnd, Watch,
};

use crate::exchange::ConnectionEnd;
use crate::mode::{CloseKind, Mode};

/// How long to wait for bytes that the client had announced and not sent: the kernel answers them with a RST.
const BODY_COMES: Duration = Duration::from_secs(1);

/// A connection from its accept to its end.
pub(crate) struct Accepted {
    /// Number of the connection, from 1.
    pub(crate) number: u64,
    pub(crate) connection: Connection,
    pub(crate) mode: Mode,
    /// A process of its own answers.
    pub(crate) has_child: bool,
    /// That process has ended without an answer.
    pub(crate) child_failed: bool,
    pub(crate) watch: Watch,
}

impl Accepted {
    /// Hands on how the connection ended. If there is something to explain, this waits for the evidence.
    pub(crate) async fn end(
        self,
        end: &ConnectionEnd,
        failed: Option<Failure>,
        tape: Tape,
        dispatch: &Dispatch,
        stop: &StopOrder,
    ) {
        let kind = end.answer.map(|answer| answer.kind);
        let is_response = kind == Some(AnswerKind::Response);
        let side = ServerSide {
            closed: end.closed,
            linger_zero: is_response && self.mode.row().close == CloseKind::Abort,
            killed: is_response && self.has_child,
            response_whole: !is_response || end.response_whole,
        };
        let ended = Ended {
            number: self.number,
            began: self.watch.began,
            ended: monotonic_now(),
            connection: Some(self.connection),
            reused: false,
            request: None,
            head_bytes: end.head_bytes,
            phase: match kind {
                None => Phase::SendingHead,
                Some(_) if end.response_whole => Phase::AfterResponse,
                Some(_) => Phase::ReadingBody,
            },
            failed,
            outcome: match kind {
                _ if end.abandoned => Outcome::Abandoned,
                None if self.child_failed => Outcome::NoResponse,
                None => Outcome::ClientLeft,
                Some(_) if side.response_whole => Outcome::Sent,
                Some(_) => Outcome::Truncated,
            },
            teller: Teller::Upstream(UpstreamEnd {
                mode: self.mode.as_str(),
                answer: end.answer.map(|answer| (answer.status, answer.kind)),
                body_bytes: end.body_bytes,
                side,
            }),
            tape,
            verdict: None,
            record: None,
        };
        let patience = match ended.is_exchange() {
            true => patience(&side, end.request_whole, dispatch, stop),
            false => None,
        };
        match patience {
            None => dispatch.end(ended),
            Some(patience) => {
                let past = self.watch.over();
                dispatch.explain(ended, past, patience).await;
            }
        }
    }
}

/// How long to wait for evidence of a RST; `None` if there is nothing to explain.
fn patience(
    side: &ServerSide,
    request_whole: bool,
    dispatch: &Dispatch,
    stop: &StopOrder,
) -> Option<Duration> {
    // The close sends a RST at once (`tcp_close`), or a RST has come.
    let is_reset =
        side.linger_zero || side.closed.unread_bytes > 0 || side.closed.peer == Peer::Reset;
    if !is_reset && side.response_whole && request_whole && !dispatch.explains_all() {
        return None;
    }
    Some(if !dispatch.witness().sees_resets() {
        Duration::ZERO
    } else if is_reset {
        KERNEL_SPEAKS
    } else if !request_whole && !stop.finish.is_cancelled() {
        BODY_COMES
    } else {
        Duration::ZERO
    })
}
