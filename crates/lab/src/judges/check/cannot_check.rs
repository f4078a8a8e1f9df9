//! Why a server can't be checked, and which errors of a connection are our own.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::client::MAX_BYTES;
use crate::shared::target::Address;

/// Why a server can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CannotCheck {
    /// Nothing listens there, or nothing accepts the connection.
    #[error("cannot connect to {address}: is the server running, and is this its port?")]
    Connect {
        /// The server.
        address: Address,
        /// The error of `connect(2)`.
        source: io::Error,
    },
    /// A connection can't be made on this machine, whatever the server does.
    #[error("cannot open another connection: {what}")]
    OwnLimit {
        /// The limit that was reached, and what to do.
        what: &'static str,
        /// The error of `socket(2)` or `connect(2)`.
        source: io::Error,
    },
    /// The server was there, and no longer takes connections.
    #[error(
        "{address} stopped taking connections after {made} trials, so the lost responses say nothing about how it closes: \
         did the server end?"
    )]
    Gone {
        /// The server.
        address: Address,
        /// Trials before.
        made: u64,
        /// The error of `connect(2)`.
        source: io::Error,
    },
    /// A plain request without a body was not answered within the time limit.
    #[error(
        "{address} accepts connections and does not answer within {limit:?}: not even a plain request gets a \
         response, so there is none to lose. Is it an HTTP server? Is --timeout too small for it?"
    )]
    Silent {
        /// The server.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// The connection ended before a byte of a response to a plain request.
    #[error(
        "{address} {how} without a byte of a response, even to a plain request without a body: there is no \
         response to lose. Does it speak http on this port?"
    )]
    Nothing {
        /// The server.
        address: Address,
        /// `closes the connection` or `resets the connection`.
        how: &'static str,
    },
    /// The bytes that came are no HTTP/1 response, or one that rstlab can't read.
    #[error("cannot read what {address} answers a plain request with: {what}")]
    NotHttp {
        /// The server.
        address: Address,
        /// What the bytes look like.
        what: String,
    },
    /// The time of the check was up before a trial had ended.
    #[error(
        "no trial with {address} ended within {limit:?}, the time of a check with these settings; a plain request takes \
         {first_byte:?} to be answered. More --trials, a greater --timeout or --max-time give the check more time; it needs less \
         with --scenario or shorter --gaps"
    )]
    NoTrial {
        /// The server.
        address: Address,
        /// The time.
        limit: Duration,
        /// Time from connecting to the first byte of the response to a plain request.
        first_byte: Duration,
    },
    /// The server answers most requests with 401 or 429.
    #[error(
        "{address} answers {turned_away} of {answered} requests with {status}, which says nothing about how it closes. {}",
        instead(*.status)
    )]
    TurnedAway {
        /// The server.
        address: Address,
        /// 401 or 429.
        status: u16,
        /// How many requests.
        turned_away: u64,
        /// Of so many.
        answered: u64,
    },
    /// The check was interrupted before a trial had ended.
    #[error("interrupted: no report was made")]
    Interrupted,
    /// The response does not end.
    #[error(
        "the response of {address} does not end within {limit:?} or {} MiB: give a path whose response does", MAX_BYTES >> 20
    )]
    Endless {
        /// The server.
        address: Address,
        /// The limit.
        limit: Duration,
    },
}

/// Errors of `socket(2)` and `connect(2)` that this machine causes, not the server, and what to do.
const OWN_LIMITS: [(Errno, &str); 5] = [
    (
        Errno::MFILE,
        "this process may have no more open files: raise the limit with ulimit -n",
    ),
    (
        Errno::NFILE,
        "this machine may have no more open files: raise fs.file-max",
    ),
    (
        Errno::ADDRNOTAVAIL,
        "this machine has no free port left for a connection: wait a minute, choose fewer --trials, or widen \
         net.ipv4.ip_local_port_range",
    ),
    (
        Errno::NOBUFS,
        "this machine has no memory left for a connection",
    ),
    (
        Errno::NOMEM,
        "this machine has no memory left for a connection",
    ),
];

/// What to do about requests that are turned away with the status.
fn instead(status: u16) -> &'static str {
    match status {
        401 => {
            "Give credentials with --user NAME:PASSWORD or --header 'Authorization: ...'; if this is the answer to be checked, say \
             --expect-status 401"
        }
        _ => {
            "Ask less often with --rate, or exempt this address from the limit; if this is the answer to be checked, say \
             --expect-status 429"
        }
    }
}

/// Whether nothing listens there, for now or at all.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // The socket's path is missing while a server on a unix socket is restarted.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

/// The error of a connection that was not made: no answer was lost on it. `made` is how many connections there were
/// before, if the server was seen to be there.
pub(super) fn unconnected(address: &Address, source: io::Error, made: Option<u64>) -> CannotCheck {
    let is_it = |errno: &Errno| source.raw_os_error() == Some(errno.raw_os_error());
    if let Some((_, what)) = OWN_LIMITS.iter().find(|(errno, _)| is_it(errno)) {
        return CannotCheck::OwnLimit { what, source };
    }
    let address = address.clone();
    match made {
        None => CannotCheck::Connect { address, source },
        Some(made) => CannotCheck::Gone {
            address,
            made,
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_this_machine_is_not_blamed_on_the_server() {
        let address = Address::Tcp(([127, 0, 0, 1], 80).into());
        for (errno, part) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::ADDRNOTAVAIL, "ip_local_port_range"),
            (Errno::NOBUFS, "no memory"),
            (Errno::NOMEM, "no memory"),
            (Errno::CONNREFUSED, "after 7 trials"),
        ] {
            let text = unconnected(&address, errno.into(), Some(7)).to_string();
            assert!(text.contains(part), "{text}");
        }
    }
}
