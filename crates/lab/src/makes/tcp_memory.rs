//! Says whether the kernel is short of memory for TCP, because send buffers then stay small and resets cost nothing.

use std::fs;

use rstlab_witness::memory_pressures;

/// What the kernel had counted when a command began.
pub(crate) struct TcpMemory {
    pressures: u64,
}

impl TcpMemory {
    /// Reads the counter, to compare it later.
    pub(crate) fn now() -> Self {
        Self {
            pressures: memory_pressures().unwrap_or_default(),
        }
    }

    /// A sentence, if the kernel was short of memory since then, or is now.
    pub(crate) fn shortage(&self) -> Option<String> {
        let times = Self::now().pressures.saturating_sub(self.pressures);
        let sockstat = fs::read_to_string("/proc/net/sockstat").ok()?;
        // In a container the limits cannot be read.
        let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
        shortage(times, pages(&sockstat)?, &limits)
    }
}

fn shortage(times: u64, pages: u64, limits: &str) -> Option<String> {
    // Three numbers of pages; above the second one the kernel saves memory (`tcp_enter_memory_pressure`).
    let limit = limits
        .split_whitespace()
        .nth(1)
        .and_then(|it| it.parse().ok());
    (times > 0 || limit.is_some_and(|limit: u64| pages > limit)).then(|| {
        format!(
            "the kernel is short of memory for TCP (TCPMemoryPressures +{times}, {pages} pages in use): its send \
             buffers stay small, so that a reset may find nothing to cut; see net.ipv4.tcp_mem"
        )
    })
}

/// The pages of memory that all TCP sockets use: `TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1`.
fn pages(sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP: "))?;
    tcp.rsplit_once(" mem ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_memory_is_told_by_the_counter_or_by_the_limit() {
        let short = |times, pages| shortage(times, pages, "100\t200\t300\n").is_some();
        assert!(short(1, 0) && short(0, 201));
        assert!(!short(0, 200));
        assert_eq!(shortage(0, 1000, ""), None);
        assert!(shortage(2, 7, "").unwrap().contains("+2, 7 pages"));
    }

    #[test]
    fn the_kernel_tells_the_pages_in_use() {
        let text =
            "sockets: used 2\nTCP: inuse 1 orphan 0 tw 6 alloc 2 mem 7871\nUDP: inuse 0 mem 0\n";
        assert_eq!(pages(text), Some(7871));
        assert!(pages(&fs::read_to_string("/proc/net/sockstat").unwrap()).is_some());
    }
}
