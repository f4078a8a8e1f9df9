//! The client of `rstlab trace`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use rstlab_cli::grouped;
use rstlab_witness::{Event, Lane, monotonic_now};

use crate::makes::load::connection::{ExchangeSoFar, LoadConnection};
use crate::makes::load::{LoadPlan, Target};

/// A request as its client saw it.
pub(super) struct Asked {
    body_bytes: u64,
    began: Duration,
    ended: Duration,
    so_far: ExchangeSoFar,
    /// The response came to its end.
    whole: bool,
}

impl Asked {
    /// Sends a POST on a new connection, and reads the response.
    ///
    /// # Errors
    /// There is no connection. A response that is cut or does not come is no error: the trace is to show it.
    pub(super) async fn ask(address: SocketAddr, body_bytes: u64) -> anyhow::Result<Self> {
        let plan = LoadPlan {
            body_bytes: Some(body_bytes),
            ..LoadPlan::new(Target::from(address))
        };
        let mut link = LoadConnection::open(&plan)
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

    /// Whether the upstream's whole response came, not a 502 of the proxy.
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
