//! The upstream's modes: what it does with a request's body, how much it answers, and how the connection ends.

/// What is done with a request's body. [`BodyPolicy`](crate::BodyPolicy) is this with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// It is not looked at.
    Ignore,
    /// It is read to its end and thrown away.
    Drain,
    /// As `Drain`, up to a number of bytes.
    Cap,
}

/// How much of a response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseKind {
    /// All of it.
    Whole,
    /// The head, and half of the body that the head announces.
    Half,
}

/// How a connection is closed. [`Policy`](rstlab_wire::close::Policy) is this with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseKind {
    /// `close()` at once.
    Immediate,
    /// After a time.
    Delay,
    /// In stages: half-close, read on within bounds, close.
    Linger,
    /// With `SO_LINGER {on, 0}`.
    Abort,
    /// The connection is kept until the next request comes, then closed.
    OnArrival,
}

/// Which process answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessKind {
    /// The server itself.
    Own,
    /// A child of the server, one for each connection; its death by SIGKILL ends the connection.
    Child,
}

/// A mode's row in the table of modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeRow {
    /// The mode's name in settings and logs.
    pub name: &'static str,
    /// The mode's lines in the help.
    pub help: &'static str,
    /// What is done with a request's body.
    pub body: BodyKind,
    /// How much is answered.
    pub response: ResponseKind,
    /// How the connection is closed. The kernel closes a killed child's connection.
    pub close: CloseKind,
    /// Which process answers.
    pub process: ProcessKind,
}

/// Declares the modes, one row each: the lines of its help, the variant, the name, and the mode's four parts.
macro_rules! modes {
    ($(
        $(#[doc = $help:literal])+
        $Mode:ident $name:literal: $body:ident, $response:ident, $close:ident, $process:ident;
    )+) => {
        /// What the server does with a request's body, and how it closes after the response.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mode {
            $( $(#[doc = $help])+ $Mode, )+
        }

        const ROWS: &[ModeRow] = &[$(
            ModeRow {
                name: $name,
                help: concat!($($help, "\n"),+),
                body: BodyKind::$body,
                response: ResponseKind::$response,
                close: CloseKind::$close,
                process: ProcessKind::$process,
            },
        )+];

        impl Mode {
            /// All of them, the bug first.
            pub const ALL: [Mode; ROWS.len()] = [$(Mode::$Mode),+];
        }
    };
}

modes! {
    /// ignores the body and closes at once: the bug. Unread bytes, or bytes
    /// that come later, make the kernel send a RST
    Lazy "lazy": Ignore, Whole, Immediate, Own;

    /// reads the body to its end, throws it away, closes at once: a FIN
    Drain "drain": Drain, Whole, Immediate, Own;

    /// reads the body up to a cap, closes at once; over the cap: 413, then a
    /// staged close, so that the client gets the 413
    Cap "cap": Cap, Whole, Immediate, Own;

    /// ignores the body, sleeps after the response, closes: moves the RST,
    /// does not prevent it
    Delay "delay": Ignore, Whole, Delay, Own;

    /// ignores the body, half-closes, reads on within a time and a number of
    /// bytes, closes: as gunicorn 26 and nginx do (RFC 9112, 9.6)
    Linger "linger": Ignore, Whole, Linger, Own;

    /// ignores the body, closes with SO_LINGER 0: a RST for another reason
    Abort "abort": Ignore, Whole, Abort, Own;

    /// reads the body, sends the head and half of the response's body,
    /// closes: a FIN in the middle of the response, no RST
    Truncate "truncate": Drain, Half, Immediate, Own;

    /// reads the body, keeps the connection, closes it when the next request
    /// has come (unread, so a RST): the keep-alive race, always lost. Closes
    /// at once if the request says `Connection: close`, and after 60 s
    /// without a next request
    IdleClose "idle-close": Drain, Whole, OnArrival, Own;

    /// ignores the body, sends the head and half of the response's body, and
    /// is killed by SIGKILL: each connection has a process of its own, 64 at
    /// once. Unread bytes: a RST; nothing unread: a FIN
    Kill "kill": Ignore, Half, Immediate, Child;
}

impl Mode {
    /// Its row in the table of modes.
    pub const fn row(self) -> &'static ModeRow {
        &ROWS[self as usize]
    }

    /// Its name in settings and logs.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// Whether a connection lives on after a response: the next request is to find it there.
    pub fn keeps_alive(self) -> bool {
        let row = self.row();
        row.close == CloseKind::OnArrival && row.response == ResponseKind::Whole
    }

    /// Whether a process of its own answers each connection, and is killed.
    pub fn has_child(self) -> bool {
        self.row().process == ProcessKind::Child
    }

    /// Each mode's name and what it does.
    pub fn meanings() -> impl Iterator<Item = (&'static str, &'static str)> {
        ROWS.iter().map(|row| (row.name, row.help))
    }
}
