//! One exchange: its facts while it runs, and how it ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use rstlab_wire::{Call, Failure, Phase, Seen, Slot, monotonic_now, nanos};
use rstlab_witness::{
    Cause, ClientSide, Connection, Ended, KERNEL_SPEAKS, Outcome, ProxyEnd, Teller, Verdict, Watch,
};
use tokio::net::TcpStream;

use crate::config::ProxyConfig;
use crate::trouble::Trouble;

/// One request and its upstream connection, until it ends. The driver of the connection owns it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) number: u64,
    client: SocketAddr,
    /// `POST /`, if the head could be read.
    request: Option<String>,
    upstream: String,
    /// The connection had carried a request before.
    reused: bool,
    /// Watched since before the connection was made, or taken.
    pub(crate) watch: Watch,
    /// The upstream's address, once there is a connection.
    pub(crate) server: Option<SocketAddr>,
    /// The two ends, if there is something to explain.
    connection: Option<Connection>,
    /// The connection's descriptor. It is free when the connection is closed and the exchange's end is told.
    pub(crate) slot: Option<Slot>,
}

/// How a response reached the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// The client was handed the whole response.
    Whole,
    /// The head was handed on, then the response ended too early.
    Cut(Trouble),
    /// There was no response; the proxy answered in its place.
    Nothing(Trouble),
    /// The client's request was at fault; the proxy answered.
    Refused(Trouble),
    /// The client left: no response was lost.
    ClientLeft,
    /// The proxy ended before that.
    Abandoned,
}

/// The part of a response that the client was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) came: Came,
    /// Body bytes of the response.
    pub(crate) body_bytes: u64,
    /// Body bytes that the response announced.
    pub(crate) expected_bytes: Option<u64>,
}

/// An exchange whose client's part is over. Its connection may still be watched or kept.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) exchange: Exchange,
    pub(crate) seen: Seen,
    handed: Handed,
    at: Duration,
}

impl Exchange {
    pub(crate) fn new(
        number: u64,
        client: SocketAddr,
        request: Option<String>,
        config: &ProxyConfig,
        reused: bool,
        watch: Watch,
    ) -> Self {
        Self {
            number,
            client,
            request,
            upstream: config.upstream.clone(),
            reused,
            watch,
            server: None,
            connection: None,
            slot: None,
        }
    }

    /// Whether a response has no body because the request was a HEAD.
    pub(crate) fn is_head(&self) -> bool {
        self.request
            .as_ref()
            .is_some_and(|request| request.starts_with("HEAD "))
    }

    /// Asks the socket for its own address, which a RST does not take away. The peer's it would (`inet_getname`).
    pub(crate) fn locate(&mut self, stream: &TcpStream) {
        let ends = self.server.zip(stream.local_addr().ok());
        self.connection = ends.map(|(server, client)| Connection { server, client });
    }

    /// The client's part in the exchange was over at `at`.
    pub(crate) fn finished(self, seen: Seen, handed: Handed, at: Duration) -> Finished {
        Finished {
            exchange: self,
            seen,
            handed,
            at,
        }
    }

    /// The exchange ended before there was a connection, by `error` if making the connection failed.
    pub(crate) fn not_connected(self, came: Came, error: Option<&io::Error>) -> Ended {
        let handed = Handed {
            came,
            body_bytes: 0,
            expected_bytes: None,
        };
        let failed = error.map(|error| Failure {
            call: Call::Connect,
            errno: error.raw_os_error().unwrap_or(0),
            phase: Phase::SendingHead,
        });
        let ended = self.finished(Seen::default(), handed, monotonic_now());
        let mut ended = ended.into_ended().0;
        // A RST answered the SYN. The kernel's trace cannot tell which: the proxy's port is not known.
        if error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            ended.verdict = Some(Verdict::inferred(Cause::Refused));
        }
        if let (Some(failure), Some(error), Teller::Proxy(end)) = (failed, error, &mut ended.teller)
        {
            end.trouble = Some(match failure.errno {
                // The name did not resolve.
                0 => error.to_string(),
                _ => failure.to_string(),
            });
        }
        ended.failed = failed;
        ended
    }

    /// The proxy answered the request with `status` in place of an exchange, and says why.
    pub(crate) fn refused(self, status: StatusCode, why: String) -> Ended {
        let mut ended = self.not_connected(Came::Refused(Trouble::Client(status)), None);
        if let Teller::Proxy(end) = &mut ended.teller {
            end.trouble = Some(why);
        }
        ended
    }
}

impl Came {
    /// There is no response, because of `trouble`.
    pub(crate) fn failed(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Client(_) | Trouble::Short => Came::Refused(trouble),
            Trouble::ClientLeft => Came::ClientLeft,
            trouble => Came::Nothing(trouble),
        }
    }

    /// Adds how the upstream connection ended. A response may be cut because its request could not be finished: hyper
    /// then gives the response's body no reason (`Dispatcher::poll_catch`). If the upstream cut the response, the
    /// request fails after that, and its trouble does not matter.
    pub(crate) fn with_end(self, connection: Trouble) -> Self {
        match (self, connection) {
            (Came::Cut(Trouble::Closed), Trouble::ClientLeft) => Came::ClientLeft,
            (Came::Cut(Trouble::Closed), Trouble::Client(_)) => Came::Cut(connection),
            _ => self,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Came::Whole => Outcome::Whole,
            Came::Cut(_) => Outcome::Truncated,
            Came::Nothing(_) => Outcome::NoResponse,
            Came::ClientLeft => Outcome::ClientLeft,
            Came::Refused(_) => Outcome::Refused,
            Came::Abandoned => Outcome::Abandoned,
        }
    }
}

impl Finished {
    fn trouble(&self) -> Option<Trouble> {
        match self.handed.came {
            Came::Whole | Came::ClientLeft | Came::Abandoned => None,
            Came::Cut(trouble) | Came::Nothing(trouble) | Came::Refused(trouble) => Some(trouble),
        }
    }

    /// How long to wait for evidence, if there is something to explain.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match (self.seen.reset(), self.trouble()) {
            (Some(_), _) => Some(KERNEL_SPEAKS),
            // A FIN came too early.
            (None, Some(Trouble::Closed)) => Some(Duration::ZERO),
            (None, _) => None,
        }
    }

    /// The end, and its watch.
    pub(crate) fn into_ended(self) -> (Ended, Watch) {
        let trouble = self.trouble();
        let Self {
            exchange,
            seen,
            handed,
            at,
        } = self;
        let reset = seen.reset();
        let side = ClientSide {
            reset,
            written_bytes: seen.written_bytes(),
            pause_ns: nanos(seen.pause()),
            read_bytes: seen.read_bytes(),
            response_whole: handed.came == Came::Whole,
            reused: exchange.reused,
        };
        let ended = Ended {
            number: exchange.number,
            began: exchange.watch.began,
            ended: at,
            connection: exchange.connection,
            reused: exchange.reused,
            request: exchange.request,
            head_bytes: seen.head_bytes(),
            phase: reset.map_or_else(|| seen.phase(), |failure| failure.phase),
            failed: seen.failure(),
            outcome: handed.came.outcome(),
            teller: Teller::Proxy(ProxyEnd {
                client: exchange.client,
                upstream: exchange.upstream,
                trouble: trouble.map(|trouble| trouble.text().to_owned()),
                status: match handed.came {
                    Came::Nothing(trouble) | Came::Refused(trouble) => {
                        Some(trouble.status().as_u16())
                    }
                    Came::Whole | Came::Cut(_) | Came::ClientLeft | Came::Abandoned => None,
                },
                body_bytes: handed.body_bytes,
                expected_bytes: handed.expected_bytes,
                side,
            }),
            tape: seen.tape,
            verdict: None,
            record: None,
        };
        (ended, exchange.watch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rstlab_witness::{Dispatch, Summary, Takers, Witness};

    use super::*;

    fn exchange() -> Exchange {
        let dispatch = Dispatch::new(Witness::default(), Takers::default());
        let (client, config) = (([127, 0, 0, 1], 9).into(), ProxyConfig::default());
        let asked = Some("POST /".to_owned());
        Exchange::new(1, client, asked, &config, false, dispatch.watch())
    }

    pub(crate) fn finished() -> Finished {
        let handed = Handed {
            came: Came::Whole,
            body_bytes: 0,
            expected_bytes: None,
        };
        exchange().finished(Seen::default(), handed, Duration::ZERO)
    }

    #[test]
    fn a_response_that_the_upstream_has_reset_is_cut_whatever_its_request_meets_later() {
        let cut = Came::Cut(Trouble::Reset);
        let malformed = Trouble::Client(StatusCode::BAD_REQUEST);
        for request in [Trouble::ClientLeft, malformed, Trouble::Reset] {
            assert_eq!(cut.with_end(request), cut);
        }
        let unexplained = Came::Cut(Trouble::Closed);
        assert_eq!(unexplained.with_end(malformed), Came::Cut(malformed));
        assert_eq!(unexplained.with_end(Trouble::ClientLeft), Came::ClientLeft);
        assert_eq!(unexplained.with_end(Trouble::Closed), unexplained);
    }

    #[test]
    fn resets_and_losses_are_counted_apart() {
        let takers = Takers::default();
        let dispatch = Dispatch::new(Witness::default(), takers.clone());
        let end = |came, body_bytes, expected_bytes, reset| {
            let mut seen = Seen::default();
            if reset {
                seen.failed(Call::Recv, &io::Error::from_raw_os_error(104));
            }
            let handed = Handed {
                came,
                body_bytes,
                expected_bytes,
            };
            let finished = exchange().finished(seen, handed, Duration::ZERO);
            dispatch.end(finished.into_ended().0);
        };
        end(Came::Whole, 600, Some(600), true);
        end(Came::Cut(Trouble::Reset), 200, Some(600), true);
        // By a FIN.
        end(Came::Cut(Trouble::Closed), 100, Some(600), false);
        end(Came::Nothing(Trouble::Closed), 0, None, false);
        end(Came::ClientLeft, 0, None, false);
        end(
            Came::failed(Trouble::Client(StatusCode::PAYLOAD_TOO_LARGE)),
            0,
            None,
            false,
        );
        end(Came::Abandoned, 0, None, false);
        let expected = Summary {
            requests: 7,
            whole: 1,
            truncated: 2,
            no_response: 1,
            left: 1,
            refused: 1,
            abandoned: 1,
            resets: 2,
            harmless: 1,
            lost_bytes: 900,
        };
        assert_eq!(takers.totals().summary(), expected);
    }
}
