//! What to watch, and for how long.

use std::collections::HashSet;
use std::time::Duration;

use rstlab_cli::Settings;
use rstlab_witness::Level;

use crate::shared::given::given;

/// Explain each reset on this machine, beside any server: who sent it, to whom, and why
///
/// With --witness kernel it asks the kernel (tracepoint tcp:tcp_send_reset) for each RST that this machine sends, in
/// all network namespaces. This needs root and tracefs: mount -t tracefs tracefs /sys/kernel/tracing. "Sent by" is the
/// process whose system call sent the RST; where the kernel answered for it, "port of" is the process that listens
/// there. A RST that a packet filter makes (REJECT) is not seen.
///
/// With --witness packets it captures TCP segments (their first 128 bytes) in this network namespace, which needs
/// CAP_NET_RAW, and sees the RSTs sent and received. The cause is what the segments before it show: "inferred" where
/// another cause looks the same, as a close with unread bytes and SO_LINGER zero do, or where the capture began in
/// the middle of the connection. A new HTTP request that met the RST on a used connection is told as
/// keep-alive-race; the kernel's trace alone cannot tell that, because it has no payload. A packet that passes several interfaces (a bridge) is
/// told at each. Name the port on a busy machine.
///
/// With --http the request whose connection was reset is told, too: method and path, without the query, from the first 64
/// bytes of the segments. Beside the kernel's trace this needs CAP_NET_RAW, and shows requests in this network namespace only.
/// In TLS and HTTP/2 no request can be read. With it the kernel's resets are told as keep-alive-race, too.
///
/// The first RST of a connection decided; an echo came later. Times are UTC. It ends on SIGINT or SIGTERM with a
/// summary on standard error and exit code 0; lost events or packets are told there too.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Only resets from or to this port; may be given more than once [default: all]
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,

    /// Who tells of the resets: kernel, packets, or auto, the kernel if it can be asked
    #[arg(long, value_name = "WITNESS", default_value = "auto")]
    witness: String,

    /// Tell method and path of the request whose connection was reset, from captured packets
    #[arg(long)]
    http: bool,

    /// Print one JSON object a line (crates/lab/schema/watch.json describes it)
    #[arg(long)]
    json: bool,

    /// End after so many resets and echoes
    #[arg(long, value_name = "N")]
    count: Option<String>,

    /// End after this time
    #[arg(long, value_name = "TIME")]
    duration: Option<String>,
}

/// What to watch, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchConfig {
    /// Ports to watch; all, if empty.
    pub ports: Vec<u16>,
    /// The kernel or the packets; `None` is the kernel if it can be asked, else the packets.
    pub witness: Option<Level>,
    /// Tell the requests, too.
    pub http: bool,
    /// JSON instead of text.
    pub json: bool,
    /// End after so many lines.
    pub count: Option<u64>,
    /// End after this time.
    pub duration: Option<Duration>,
}

impl WatchArgs {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<WatchConfig> {
        let ports: Vec<Option<u16>> = self
            .ports
            .iter()
            .map(|text| {
                settings.read("--port", text, "a port, 1 to 65535", |text| {
                    text.parse().ok().filter(|port| *port > 0)
                })
            })
            .collect();
        let choices = [
            ("auto", None),
            (Level::Kernel.as_str(), Some(Level::Kernel)),
            (Level::Packets.as_str(), Some(Level::Packets)),
        ];
        let witness = settings.choice("--witness", &self.witness, &choices);
        let count = self.count.as_ref().map(|text| {
            settings.read("--count", text, "a number over 0", |text| {
                text.parse().ok().filter(|count| *count > 0)
            })
        });
        let duration = self
            .duration
            .as_ref()
            .map(|text| settings.time_limit("--duration", text));
        let mut ports = ports.into_iter().collect::<Option<Vec<_>>>()?;
        // A port that is named twice is watched once.
        let mut seen = HashSet::new();
        ports.retain(|port| seen.insert(*port));
        Some(WatchConfig {
            ports,
            witness: witness?,
            http: self.http,
            json: self.json,
            count: given(count)?,
            duration: given(duration)?,
        })
    }
}

impl WatchConfig {
    pub(super) fn ports_text(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        match ports.as_slice() {
            [] => "the resets of all ports".to_owned(),
            [port] => format!("the resets of port {port}"),
            ports => format!("the resets of the ports {}", ports.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(
        ports: &[&str],
        witness: &str,
        count: Option<&str>,
        duration: Option<&str>,
    ) -> WatchArgs {
        WatchArgs {
            witness: witness.to_owned(),
            ports: ports.iter().map(ToString::to_string).collect(),
            http: false,
            json: false,
            count: count.map(str::to_owned),
            duration: duration.map(str::to_owned),
        }
    }

    #[test]
    fn settings_are_read() {
        let mut settings = Settings::default();
        let config =
            args(&["80", "8080", "80"], "packets", Some("3"), Some("2s")).config(&mut settings);
        let config = settings.finish(config).unwrap();
        assert_eq!(
            (config.ports.as_slice(), config.count),
            (&[80, 8080][..], Some(3))
        );
        assert_eq!(config.witness, Some(Level::Packets));
        assert_eq!(config.duration, Some(Duration::from_secs(2)));
        assert_eq!(config.ports_text(), "the resets of the ports 80, 8080");
    }

    #[test]
    fn every_bad_setting_is_named() {
        let mut settings = Settings::default();
        let config =
            args(&["0", "x", "80"], "sockets", Some("0"), Some("0s")).config(&mut settings);
        let text = settings.finish(config).unwrap_err().to_string();
        for bad in [
            "--port=\"0\"",
            "--port=\"x\"",
            "--witness=\"sockets\"",
            "--count=\"0\"",
            "--duration=\"0s\"",
        ] {
            assert!(text.contains(bad), "{text}");
        }
    }
}
