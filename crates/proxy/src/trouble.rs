//! Why an exchange brought no response, or not all of it, and the proxy's answer to that.

use std::error::Error;
use std::io;

use http::StatusCode;
use http_body_util::LengthLimitError;
use rstlab_wire::causes;

use crate::outgoing::ClientBodyError;

/// Why an exchange brought no response, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No connection to the upstream.
    Unreachable,
    /// No file descriptor for a connection to the upstream.
    Short,
    /// A time limit towards the upstream passed.
    TimedOut,
    /// The upstream reset the connection.
    Reset,
    /// The upstream closed the connection too early.
    Closed,
    /// The upstream's bytes are not HTTP/1.1.
    Malformed,
    /// The client's request was at fault; the status of the answer says how.
    Client(StatusCode),
    /// The client left in the middle of its body: nobody waits for an answer.
    ClientLeft,
}

impl Trouble {
    /// Finds the first cause: walks the error's sources down to what hyper met on the wire.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        for error in causes(error) {
            if let Some(client) = error.downcast_ref::<ClientBodyError>() {
                return Self::of_client_body(client);
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Self::of_io(io);
            }
            if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
                if hyper.is_parse() {
                    return Trouble::Malformed;
                }
                if hyper.is_incomplete_message() {
                    return Trouble::Closed;
                }
            }
        }
        // hyper ended the connection without saying why.
        Trouble::Closed
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Trouble::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Trouble::Reset,
            // hyper's decoder met a malformed chunk.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Trouble::Malformed,
            _ => Trouble::Closed,
        }
    }

    fn of_client_body(error: &ClientBodyError) -> Self {
        if matches!(error, ClientBodyError::TimedOut(_)) {
            return Trouble::Client(StatusCode::REQUEST_TIMEOUT);
        }
        if causes(error).any(<dyn Error>::is::<LengthLimitError>) {
            return Trouble::Client(StatusCode::PAYLOAD_TOO_LARGE);
        }
        // The socket failed, or hyper's decoder met a FIN before the body's end.
        let left = causes(error)
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|error| {
                error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof
            });
        match left {
            true => Trouble::ClientLeft,
            false => Trouble::Client(StatusCode::BAD_REQUEST),
        }
    }

    /// The answer for a client that has got no response yet.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Trouble::Unreachable | Trouble::Reset | Trouble::Closed | Trouble::Malformed => {
                StatusCode::BAD_GATEWAY
            }
            Trouble::Short => StatusCode::SERVICE_UNAVAILABLE,
            Trouble::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Trouble::Client(status) => status,
            // Stands in no answer.
            Trouble::ClientLeft => StatusCode::BAD_REQUEST,
        }
    }

    /// One line for the answer's body and the log.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Trouble::Unreachable => "the upstream cannot be reached",
            Trouble::Short => "the proxy is short of file descriptors",
            Trouble::TimedOut => "the upstream took too long",
            Trouble::Reset => "the upstream reset the connection",
            Trouble::Closed => "the upstream closed the connection too early",
            Trouble::Malformed => "the upstream's response is malformed",
            Trouble::Client(StatusCode::REQUEST_TIMEOUT) => "the request's body took too long",
            Trouble::Client(StatusCode::PAYLOAD_TOO_LARGE) => "the request's body is too large",
            Trouble::Client(_) => "the request's body is malformed",
            Trouble::ClientLeft => "the client left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_error_s_kind_and_side_decide_the_trouble() {
        let io = |kind: io::ErrorKind| Trouble::of(&io::Error::from(kind));
        assert_eq!(io(io::ErrorKind::TimedOut).status(), 504);
        assert_eq!(io(io::ErrorKind::ConnectionReset), Trouble::Reset);
        assert_eq!(io(io::ErrorKind::BrokenPipe), Trouble::Reset);
        assert_eq!(io(io::ErrorKind::UnexpectedEof), Trouble::Closed);
        assert_eq!(io(io::ErrorKind::InvalidInput), Trouble::Malformed);

        let timed_out = ClientBodyError::TimedOut(Duration::ZERO);
        assert_eq!(Trouble::of(&timed_out).status(), 408);
        let client = |error: io::Error| Trouble::of(&ClientBodyError::Failed(error.into()));
        assert_eq!(client(io::ErrorKind::InvalidInput.into()).status(), 400);
        // A client that resets is not an upstream that resets.
        assert_eq!(
            client(io::Error::from_raw_os_error(104)),
            Trouble::ClientLeft
        );
        assert_eq!(
            client(io::ErrorKind::UnexpectedEof.into()),
            Trouble::ClientLeft
        );
    }
}
