use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::grouped;
use rstlab_witness::{Event, Lane, monotonic_now};

use crate::load::link::{Link, SoFar};
use crate::load::{Plan, Target};

/// A request as its client saw it.
pub(super) struct Asked {
    body_bytes: u64,
    began: Duration,
    ended: Duration,
    so_far: SoFar,
    /// The response came to its end.
    whole: bool,
}

impl Asked {
    /// Sends a POST on a connection of its own, and reads what comes.
    ///
    /// # Errors
    /// The connection cannot be made. A response that does not come, or not wholly, is what was to be seen.
    pub(super) async fn ask(address: SocketAddr, body_bytes: u64) -> anyhow::Result<Self> {
        let plan = Plan {
            body_bytes: Some(body_bytes),
            ..Plan::new(Target::from(address))
        };
        let mut link = Link::open(&plan)
            .await
            .context("cannot connect to the proxy")?;
        let began = monotonic_now();
        let mut so_far = link.so_far();
        let whole = link.exchange(&plan, &mut so_far).await.is_ok();
        Ok(Self {
            body_bytes,
            began,
            ended: monotonic_now(),
            so_far,
            whole,
        })
    }

    /// Whether the upstream's whole response came, and no answer of the proxy's own.
    pub(super) fn was_answered(&self) -> bool {
        self.whole && self.so_far.status.is_some_and(|status| status != 502)
    }

    /// What the client did and got.
    pub(super) fn events(&self) -> [Event; 2] {
        let sent = format!("POST /, {} bytes", grouped(self.body_bytes));
        [
            Event::note(self.began, Lane::Client, sent),
            Event::note(self.ended, Lane::Client, self.got()),
        ]
    }

    fn got(&self) -> String {
        let Some(status) = self.so_far.status else {
            return "no response".to_owned();
        };
        let status = status.as_str();
        let came = grouped(self.so_far.body_bytes);
        match (self.whole, self.so_far.expected_bytes) {
            (true, _) => format!("{status}, {came} bytes: whole"),
            (false, Some(expected)) => {
                format!("{status}, {came} of {} bytes: cut", grouped(expected))
            }
            (false, None) => format!("{status}, {came} bytes: cut"),
        }
    }
}
