//! Reads the kernel's counters of resets from `/proc`.

use std::io;

use crate::evidence::Counters;

const NETSTAT: &str = "/proc/net/netstat";
const SNMP: &str = "/proc/net/snmp";

impl Counters {
    /// Reads the counters. They are in two files, which are read one after the other: not at the same instant.
    ///
    /// # Errors
    /// `/proc` is not mounted, or the kernel does not have these counters.
    pub fn read() -> io::Result<Self> {
        let netstat = std::fs::read_to_string(NETSTAT)?;
        let snmp = std::fs::read_to_string(SNMP)?;
        Self::parse(&netstat, &snmp)
    }

    pub(crate) fn parse(netstat: &str, snmp: &str) -> io::Result<Self> {
        let extended = |name| {
            value(netstat, "TcpExt:", name)
                .ok_or_else(|| io::Error::other(format!("{NETSTAT} has no {name}")))
        };
        let basic = |name| {
            value(snmp, "Tcp:", name)
                .ok_or_else(|| io::Error::other(format!("{SNMP} has no {name}")))
        };
        Ok(Self {
            abort_on_close: extended("TCPAbortOnClose")?,
            abort_on_data: extended("TCPAbortOnData")?,
            abort_on_linger: extended("TCPAbortOnLinger")?,
            resets_sent: basic("OutRsts")?,
            connections_aborted: basic("EstabResets")?,
        })
    }
}

/// How often the kernel began to save memory for TCP (`TCPMemoryPressures`).
///
/// # Errors
/// As [`Counters::read`].
pub fn memory_pressures() -> io::Result<u64> {
    let netstat = std::fs::read_to_string(NETSTAT)?;
    value(&netstat, "TcpExt:", "TCPMemoryPressures")
        .ok_or_else(|| io::Error::other(format!("{NETSTAT} has no TCPMemoryPressures")))
}

/// Each group is two lines: the names, then the values in the same order.
fn value(text: &str, group: &str, wanted: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    let (_, value) = names.zip(values).find(|(name, _)| *name == wanted)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD_NETSTAT: &str = "TcpExt: SyncookiesSent TCPAbortOnData TCPAbortOnLinger TCPAbortOnClose\n\
                                TcpExt: 0 3 4 17\n\
                                IpExt: InNoRoutes TCPAbortOnData\nIpExt: 5 6\n";
    const GOOD_SNMP: &str = "Tcp: MaxConn OutRsts EstabResets\nTcp: -1 20 9\n";

    #[test]
    fn counters_are_found_by_their_names_in_any_order() {
        let counters = Counters {
            abort_on_close: 17,
            abort_on_data: 3,
            abort_on_linger: 4,
            resets_sent: 20,
            connections_aborted: 9,
        };
        assert_eq!(
            Counters::parse(GOOD_NETSTAT, GOOD_SNMP).unwrap(),
            counters,
            "in any order"
        );
    }

    #[test]
    fn a_missing_counter_is_named() {
        for bad in [
            "",
            "TcpExt: TCPAbortOnClose\n",
            "TcpExt: A B\nTcpExt: 1 2\n",
        ] {
            let error = Counters::parse(bad, GOOD_SNMP).unwrap_err().to_string();
            assert_eq!(error, "/proc/net/netstat has no TCPAbortOnClose", "{bad}");
        }
        let error = Counters::parse(GOOD_NETSTAT, "Tcp: EstabResets\nTcp: x\n").unwrap_err();
        assert_eq!(error.to_string(), "/proc/net/snmp has no OutRsts");
    }

    #[test]
    fn the_counters_of_this_kernel_can_be_read() {
        Counters::read().unwrap();
        memory_pressures().unwrap();
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_counters_panic(text in "(TcpExt: [A-Za-z0-9 ]{0,40}\n|Tcp: .{0,40}\n|.{0,40}\n){0,6}") {
            let _ = Counters::parse(&text, &text);
        }
    }
}
