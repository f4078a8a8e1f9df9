use std::fmt;

/// A kind of evidence, on top of what the sockets show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The program's own sockets; needs no privilege.
    Sockets,
    /// The counters of the network namespace (`/proc/net/netstat`, `/proc/net/snmp`); needs no privilege.
    Counters,
    /// A capture of the packets; needs `CAP_NET_RAW`.
    Packets,
    /// The kernel's trace; needs root and a mounted tracefs.
    Kernel,
}

impl Level {
    /// All of them, weakest first.
    pub const ALL: [Level; 4] = [
        Level::Sockets,
        Level::Counters,
        Level::Packets,
        Level::Kernel,
    ];

    /// Its name in settings and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Sockets => "sockets",
            Level::Counters => "counters",
            Level::Packets => "packets",
            Level::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
