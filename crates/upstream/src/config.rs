use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use rstlab_wire::Reads;
use rstlab_wire::close::{Bounds, Policy};

/// How long [`Mode::IdleClose`] waits for the next request.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What the server does with a request's body, and how it closes after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Ignores the body and closes at once: the bug.
    Lazy,
    /// Reads the body to its end, throws it away, and closes at once.
    Drain,
    /// Reads the body up to a cap and closes at once; over the cap it answers 413 and closes in stages.
    Cap,
    /// Ignores the body, sleeps after the response, then closes: moves the RST, does not prevent it.
    Delay,
    /// Ignores the body and closes in stages: half-close, read on within bounds, close (RFC 9112 §9.6).
    Linger,
    /// Ignores the body and closes with `SO_LINGER {on, 0}`: a RST for another reason.
    Abort,
    /// Reads the body to its end and closes in the middle of the response: a FIN, no RST.
    Truncate,
    /// Reads the body to its end, keeps the connection, and closes it when the next request comes: the
    /// keep-alive race (RFC 9112 §9.3.1), lost every time.
    IdleClose,
    /// Ignores the body, and the process that answers is killed in the middle of the response.
    Kill,
}

impl Mode {
    /// All of them, the bug first.
    pub const ALL: [Mode; 9] = [
        Mode::Lazy,
        Mode::Drain,
        Mode::Cap,
        Mode::Delay,
        Mode::Linger,
        Mode::Abort,
        Mode::Truncate,
        Mode::IdleClose,
        Mode::Kill,
    ];

    /// Its name in settings and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Lazy => "lazy",
            Mode::Drain => "drain",
            Mode::Cap => "cap",
            Mode::Delay => "delay",
            Mode::Linger => "linger",
            Mode::Abort => "abort",
            Mode::Truncate => "truncate",
            Mode::IdleClose => "idle-close",
            Mode::Kill => "kill",
        }
    }
}

/// What is done with a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyPolicy {
    /// It is not looked at.
    Ignore,
    /// It is read to its end and thrown away.
    Drain,
    /// As `Drain` up to so many bytes (of content, without chunk framing); more is answered with 413.
    Cap(u64),
}

impl BodyPolicy {
    /// What has to be read from the connection for it.
    pub(crate) fn reads(self) -> Reads {
        match self {
            BodyPolicy::Ignore => Reads::HeadOnly,
            BodyPolicy::Drain | BodyPolicy::Cap(_) => Reads::Everything,
        }
    }
}

/// The server's settings, validated. [`Default`] gives the documented defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `host:port` to listen on.
    pub listen: String,
    /// Body policy and close policy.
    pub mode: Mode,
    /// Length of each response's body.
    pub response_bytes: u64,
    /// Status of each response, 200 to 599.
    pub status: StatusCode,
    /// Time between the end of reading and the answer.
    pub think: Duration,
    /// Most bytes of a body in [`Mode::Cap`]; zero refuses every body.
    pub max_body: u64,
    /// Time between response and close in [`Mode::Delay`].
    pub close_delay: Duration,
    /// How long [`Mode::Linger`] reads on.
    pub linger: Bounds,
    /// The program rstlab-upstream, which [`Mode::Kill`] starts for each connection; no other mode needs it.
    pub program: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8000".to_owned(),
            mode: Mode::Lazy,
            response_bytes: 614_400,
            status: StatusCode::OK,
            think: Duration::ZERO,
            max_body: 1024 * 1024,
            close_delay: Duration::from_secs(1),
            linger: Bounds {
                time: Duration::from_secs(2),
                bytes: Some(64 * 1024),
            },
            program: None,
        }
    }
}

impl Config {
    /// The mode's first half.
    pub fn body_policy(&self) -> BodyPolicy {
        match self.mode {
            Mode::Lazy | Mode::Delay | Mode::Linger | Mode::Abort | Mode::Kill => {
                BodyPolicy::Ignore
            }
            Mode::Drain | Mode::Truncate | Mode::IdleClose => BodyPolicy::Drain,
            Mode::Cap => BodyPolicy::Cap(self.max_body),
        }
    }

    /// The mode's second half: how a connection is closed after a response the mode is meant to show.
    /// Refusals (400, 408, 413, 431) are always closed in stages.
    pub fn close_policy(&self) -> Policy {
        match self.mode {
            // Of a killed process the kernel closes what it had open, at once.
            Mode::Lazy | Mode::Drain | Mode::Cap | Mode::Truncate | Mode::Kill => Policy::Immediate,
            Mode::Delay => Policy::Delay(self.close_delay),
            Mode::Linger => Policy::Linger(self.linger),
            Mode::Abort => Policy::Abort,
            Mode::IdleClose => Policy::OnArrival(KEEP_ALIVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_a_body_policy_times_a_close_policy() {
        let policies = Mode::ALL.map(|mode| {
            let config = Config {
                mode,
                ..Config::default()
            };
            (config.body_policy(), config.close_policy())
        });
        let linger = Config::default().linger;
        assert_eq!(
            policies,
            [
                (BodyPolicy::Ignore, Policy::Immediate),
                (BodyPolicy::Drain, Policy::Immediate),
                (BodyPolicy::Cap(1_048_576), Policy::Immediate),
                (BodyPolicy::Ignore, Policy::Delay(Duration::from_secs(1))),
                (BodyPolicy::Ignore, Policy::Linger(linger)),
                (BodyPolicy::Ignore, Policy::Abort),
                (BodyPolicy::Drain, Policy::Immediate),
                (BodyPolicy::Drain, Policy::OnArrival(KEEP_ALIVE)),
                (BodyPolicy::Ignore, Policy::Immediate),
            ]
        );
    }
}
