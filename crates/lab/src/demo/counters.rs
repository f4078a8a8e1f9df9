use std::io;
use std::ops::Sub;

/// The kernel's counters of resets that this host sent because of how a program closed, in this network
/// namespace, of all connections (`/proc/net/netstat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// `TCPAbortOnClose`: closed while bytes lay unread (`tcp_close`).
    pub abort_on_close: u64,
    /// `TCPAbortOnData`: bytes came after the close (`tcp_rcv_state_process`); a close with `SO_LINGER`
    /// zero counts here too (`tcp_close`).
    pub abort_on_data: u64,
}

impl Counters {
    /// Reads them now.
    ///
    /// # Errors
    /// `/proc` is not mounted, or the kernel does not have these counters.
    pub fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/net/netstat")?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::other("/proc/net/netstat has no TCPAbortOnClose and TCPAbortOnData")
        })
    }

    /// Each group is two lines: the names, then the values in the same order.
    fn parse(text: &str) -> Option<Self> {
        let mut tcp = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let names = tcp.next()?.split_whitespace();
        let values = tcp.next()?.split_whitespace();
        let value = |wanted| {
            let (_, value) = names
                .clone()
                .zip(values.clone())
                .find(|(name, _)| *name == wanted)?;
            value.parse().ok()
        };
        Some(Self {
            abort_on_close: value("TCPAbortOnClose")?,
            abort_on_data: value("TCPAbortOnData")?,
        })
    }
}

/// What was counted between two readings.
impl Sub for Counters {
    type Output = Counters;

    fn sub(self, earlier: Self) -> Self {
        Self {
            abort_on_close: self.abort_on_close.saturating_sub(earlier.abort_on_close),
            abort_on_data: self.abort_on_data.saturating_sub(earlier.abort_on_data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_values_by_their_names() {
        let text = "TcpExt: SyncookiesSent TCPAbortOnData TCPAbortOnClose\n\
                    TcpExt: 0 3 17\n\
                    IpExt: InNoRoutes TCPAbortOnData\nIpExt: 5 6\n";
        let counters = Counters {
            abort_on_close: 17,
            abort_on_data: 3,
        };
        assert_eq!(Counters::parse(text), Some(counters));
        for bad in ["", "TcpExt: TCPAbortOnData\n", "TcpExt: A B\nTcpExt: 1 2\n"] {
            assert_eq!(Counters::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_kernel_has_them() {
        Counters::read().unwrap();
    }
}
