use std::process::ExitCode;
use std::time::Duration;

use rstlab_cli::{Settings, block_on, stop_on_signals};
use tokio::signal::unix::{SignalKind, signal};

use super::{note, run};

/// Explain each reset that this machine sends, beside any server: who sent it, to whom, and why
///
/// It asks the kernel (tracepoint tcp:tcp_send_reset), in all network namespaces, and needs root and tracefs:
/// mount -t tracefs tracefs /sys/kernel/tracing. The first RST of a connection decided, an echo only answers a
/// segment that came later. Times are UTC. "Sent by" is the process whose system call sent the RST; where the kernel
/// answered for it, "port of" is the process that listens there. It ends on SIGINT or SIGTERM with a summary on
/// standard error and exit code 0; lost events are told there too. A RST that a packet filter makes (REJECT) is
/// not seen.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only resets from or to this port; may be given more than once [default: all]
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,

    /// Print one JSON object a line (schema/watch.json describes it)
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
pub struct Config {
    /// Ports to watch; none is all.
    pub ports: Vec<u16>,
    /// JSON instead of text.
    pub json: bool,
    /// End after so many lines.
    pub count: Option<u64>,
    /// End after this time.
    pub duration: Option<Duration>,
}

impl Args {
    /// The settings, or `None` if one of them is bad.
    pub fn config(&self, settings: &mut Settings) -> Option<Config> {
        let ports: Vec<Option<u16>> = self
            .ports
            .iter()
            .map(|text| {
                settings.read("--port", text, "a port, 1 to 65535", |text| {
                    text.parse().ok().filter(|port| *port > 0)
                })
            })
            .collect();
        let count = self.count.as_ref().map(|text| {
            settings.read("--count", text, "a number over 0", |text| {
                text.parse().ok().filter(|count| *count > 0)
            })
        });
        let duration = self
            .duration
            .as_ref()
            .map(|text| settings.time_limit("--duration", text));
        Some(Config {
            ports: ports.into_iter().collect::<Option<_>>()?,
            json: self.json,
            count: count.map_or(Some(None), |count| count.map(Some))?,
            duration: duration.map_or(Some(None), |time| time.map(Some))?,
        })
    }
}

impl Config {
    pub(super) fn ports_text(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        match ports.as_slice() {
            [] => "the resets of all ports".to_owned(),
            [port] => format!("the resets of port {port}"),
            ports => format!("the resets of the ports {}", ports.join(", ")),
        }
    }
}

/// Watches until a signal, and sums up on standard error.
///
/// # Errors
/// The kernel cannot be asked, or standard output fails.
pub fn execute(config: &Config) -> anyhow::Result<ExitCode> {
    // A write that nobody takes from us may still be waiting at the end: it is left.
    let summary = block_on(async {
        let stop = stop_on_signals()?;
        // A terminal that goes away would else leave the trace instance behind.
        let mut hangup = signal(SignalKind::hangup())?;
        let hung_up = stop.clone();
        tokio::spawn(async move {
            hangup.recv().await;
            hung_up.cancel();
        });
        run(config, &stop, &mut tokio::io::stdout()).await
    })?;
    note(&format!(
        "resets: {}, echoes: {}, lost events: {}, unreadable lines: {}",
        summary.resets, summary.echoes, summary.lost_events, summary.bad_lines
    ));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(ports: &[&str], count: Option<&str>, duration: Option<&str>) -> Args {
        Args {
            ports: ports.iter().map(ToString::to_string).collect(),
            json: false,
            count: count.map(str::to_owned),
            duration: duration.map(str::to_owned),
        }
    }

    #[test]
    fn settings_are_read() {
        let mut settings = Settings::default();
        let config = args(&["80", "8080"], Some("3"), Some("2s")).config(&mut settings);
        let config = settings.finish(config).unwrap();
        assert_eq!(
            (config.ports.as_slice(), config.count),
            (&[80, 8080][..], Some(3))
        );
        assert_eq!(config.duration, Some(Duration::from_secs(2)));
        assert_eq!(config.ports_text(), "the resets of the ports 80, 8080");
    }

    #[test]
    fn every_bad_setting_is_named() {
        let mut settings = Settings::default();
        let config = args(&["0", "x", "80"], Some("0"), Some("0s")).config(&mut settings);
        let text = settings.finish(config).unwrap_err().to_string();
        for bad in [
            "--port=\"0\"",
            "--port=\"x\"",
            "--count=\"0\"",
            "--duration=\"0s\"",
        ] {
            assert!(text.contains(bad), "{text}");
        }
    }
}
