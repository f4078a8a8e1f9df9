//! One case of the demonstration: runs an upstream and a proxy under load, and compares what client, proxy and kernel
//! counted.

use std::time::Duration;

use rstlab_upstream::Mode;
use rstlab_witness::{Counters, Summary, Takers, Witness};
use schemars::JsonSchema;
use serde::Serialize;

use crate::makes::load::{self, Extent, FailedAs, LoadPlan, LoadReport, Target};
use crate::makes::testbed::{CLOSE_DELAY, TestbedPorts};

/// Size of a request's body. A proxy that splits its writes sends even a small body after the head.
const SMALL_BODY: u64 = 22;

/// The upstream's cap for bodies, and the size of a body over the cap.
const CAP: u64 = 1024 * 1024;
const OVER_CAP: u64 = 2 * CAP;

/// Requests at once.
const CONNECTIONS: usize = 8;

/// A case of the demonstration: a way to treat the body, and a way to write the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct DemoCase {
    pub(super) name: &'static str,
    mode: Mode,
    pub(super) joined: bool,
    body_bytes: u64,
    pub(super) expected: Expected,
}

/// What the explanation says of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Connections are reset, and responses lost.
    Lost,
    /// Connections are reset, but only after their responses.
    Harmless,
    /// No connection is reset, nothing is lost.
    Clean,
    /// As `Clean`, and each answer is a 413.
    Refused,
}

/// Every mode with split writes, `lazy` with joined writes too, `cap` with a body over its cap too.
pub(super) const CASES: [DemoCase; 8] = [
    DemoCase::split(Mode::Lazy, Expected::Lost),
    DemoCase {
        joined: true,
        expected: Expected::Clean,
        ..DemoCase::split(Mode::Lazy, Expected::Lost)
    },
    DemoCase::split(Mode::Drain, Expected::Clean),
    DemoCase::split(Mode::Cap, Expected::Clean),
    DemoCase {
        name: "cap-over",
        body_bytes: OVER_CAP,
        expected: Expected::Refused,
        ..DemoCase::split(Mode::Cap, Expected::Clean)
    },
    DemoCase::split(Mode::Linger, Expected::Clean),
    DemoCase::split(Mode::Delay, Expected::Harmless),
    DemoCase::split(Mode::Abort, Expected::Lost),
];

/// The names in the column `mode`, once each.
fn mode_names() -> Vec<&'static str> {
    let split = CASES.iter().filter(|case| !case.joined);
    split.map(|case| case.name).collect()
}

/// What was counted of one case.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DemoRow {
    /// The upstream's mode; `cap-over` is `cap` with a body over its cap.
    #[schemars(extend("enum" = mode_names()))]
    pub mode: &'static str,
    /// Whether head and body of a request went out in two `writev(2)` calls or in one.
    #[schemars(extend("enum" = ["split", "joined"]))]
    pub writes: &'static str,
    /// Requests sent.
    pub requests: u64,
    /// Upstream connections on which the proxy saw a RST.
    pub resets: u64,
    /// Resets after which nothing was missing.
    pub harmless: u64,
    /// Responses whose end the client did not get.
    pub truncated: u64,
    /// Requests for which the client got a 502 or 504 of the proxy and no response of the upstream.
    pub no_response: u64,
    /// Body bytes that were announced to the client and did not come.
    pub lost_bytes: u64,
    /// Change of the kernel's `TCPAbortOnClose` during the row.
    pub abort_on_close: u64,
    /// Change of the kernel's `TCPAbortOnData` during the row.
    pub abort_on_data: u64,
    /// Whether the row behaved as the explanation says, and client and proxy counted the same.
    pub as_expected: bool,
}

impl DemoCase {
    const fn split(mode: Mode, expected: Expected) -> Self {
        Self {
            name: mode.as_str(),
            mode,
            joined: false,
            body_bytes: SMALL_BODY,
            expected,
        }
    }

    /// Starts upstream and proxy on free ports, sends the load, stops both and counts.
    pub(super) async fn run(
        &self,
        requests: u64,
        gap: Duration,
        progress: impl Fn(u64) + Sync,
    ) -> anyhow::Result<DemoRow> {
        let before = Counters::read()?;
        let upstream = rstlab_upstream::UpstreamConfig {
            mode: self.mode,
            max_body: CAP,
            close_delay: CLOSE_DELAY,
            ..rstlab_upstream::UpstreamConfig::default()
        };
        let proxy = rstlab_proxy::ProxyConfig {
            writes: if self.joined {
                rstlab_proxy::Writes::Joined
            } else {
                rstlab_proxy::Writes::Split
            },
            gap,
            max_body: None,
            ..rstlab_proxy::ProxyConfig::default()
        };
        let testbed = TestbedPorts::open().await?.start(
            (upstream, Witness::default(), Takers::default()),
            (proxy, Witness::default(), Takers::default()),
        )?;
        let (takers, address) = (testbed.takers.clone(), testbed.address);
        let plan = LoadPlan {
            extent: Extent::Requests(requests),
            connections: CONNECTIONS,
            body_bytes: Some(self.body_bytes),
            ..LoadPlan::new(Target::from(address))
        };
        let report = load::run(&plan, progress).await;
        testbed.stop().await?;
        if let Some(failure) = report
            .failures
            .iter()
            .find(|one| one.outcome == FailedAs::Refused)
        {
            anyhow::bail!(
                "{} of {requests} connections to our own proxy at {address} did not come about: {}",
                report.refused,
                failure.error
            );
        }
        let counted = Counters::read()? - before;
        Ok(self.outcome(&report, takers.totals().summary(), counted))
    }

    fn outcome(&self, client: &LoadReport, proxy: Summary, kernel: Counters) -> DemoRow {
        DemoRow {
            mode: self.name,
            writes: if self.joined { "joined" } else { "split" },
            requests: client.requests,
            resets: proxy.resets,
            harmless: proxy.harmless,
            truncated: client.truncated.total(),
            no_response: client.status_5xx,
            lost_bytes: client.lost_bytes,
            abort_on_close: kernel.abort_on_close,
            abort_on_data: kernel.abort_on_data,
            as_expected: agree(client, proxy) && self.expected.holds(client, proxy, kernel),
        }
    }
}

/// Whether the client lost exactly what the proxy counted as lost.
fn agree(client: &LoadReport, proxy: Summary) -> bool {
    client.requests == proxy.requests
        && client.whole + client.truncated.total() == client.requests
        && client.truncated.total() == proxy.truncated
        && client.status_5xx == proxy.no_response
        && client.lost_bytes == proxy.lost_bytes
}

impl Expected {
    fn holds(self, client: &LoadReport, proxy: Summary, kernel: Counters) -> bool {
        let lost = proxy.truncated + proxy.no_response;
        match self {
            Expected::Lost => {
                // Other programs may add to the namespace's counters, so they are a lower bound only.
                let counted = kernel.abort_on_close + kernel.abort_on_data;
                lost > 0 && proxy.resets >= lost && counted >= proxy.resets
            }
            Expected::Harmless => {
                proxy.resets > 0
                    && proxy.harmless == proxy.resets
                    && lost == 0
                    && kernel.abort_on_close >= proxy.resets
            }
            Expected::Clean => {
                proxy.resets == 0 && lost == 0 && client.status_2xx_3xx == client.requests
            }
            Expected::Refused => {
                proxy.resets == 0 && lost == 0 && client.status_4xx == client.requests
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(resets: u64, harmless: u64, truncated: u64) -> Summary {
        Summary {
            requests: 10,
            whole: 10 - truncated,
            truncated,
            resets,
            harmless,
            lost_bytes: truncated * 100,
            ..Summary::default()
        }
    }

    fn client(truncated: u64) -> LoadReport {
        let mut report = LoadReport {
            requests: 10,
            whole: 10 - truncated,
            status_2xx_3xx: 10 - truncated,
            lost_bytes: truncated * 100,
            ..LoadReport::default()
        };
        report.truncated.by_eof = truncated;
        report
    }

    const KERNEL: Counters = Counters {
        abort_on_close: 6,
        abort_on_data: 4,
        abort_on_linger: 0,
        resets_sent: 10,
        connections_aborted: 10,
    };

    #[test]
    fn an_explanation_that_does_not_hold_is_told() {
        let holds = |expected: Expected, truncated, proxy| {
            expected.holds(&client(truncated), proxy, KERNEL)
        };
        assert!(holds(Expected::Lost, 9, proxy(10, 1, 9)));
        assert!(!holds(Expected::Lost, 0, proxy(10, 10, 0)), "nothing lost");
        assert!(
            !holds(Expected::Lost, 9, proxy(11, 1, 9)),
            "the kernel counted fewer"
        );
        assert!(holds(Expected::Harmless, 0, proxy(6, 6, 0)));
        assert!(
            !holds(Expected::Harmless, 1, proxy(6, 5, 1)),
            "one did harm"
        );
        assert!(!holds(Expected::Harmless, 0, proxy(0, 0, 0)), "none seen");
        assert!(holds(Expected::Clean, 0, proxy(0, 0, 0)));
        assert!(!holds(Expected::Clean, 0, proxy(1, 1, 0)), "a reset");
        assert!(!holds(Expected::Refused, 0, proxy(0, 0, 0)), "no 413");
    }

    #[test]
    fn client_and_proxy_must_agree() {
        assert!(agree(&client(3), proxy(3, 0, 3)));
        assert!(
            !agree(&client(2), proxy(3, 0, 3)),
            "the proxy made a cut response look whole"
        );
        assert!(
            !agree(&client(4), proxy(3, 0, 3)),
            "the proxy cut one itself"
        );
    }
}
