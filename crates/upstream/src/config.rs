//! The settings of rstlab-upstream.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use http::StatusCode;
use rstlab_cli::allowed::{
    self, Allowed, bytes, count, directory, file_mode, host_port, on_off, socket_buffer, time,
    time_limit, workers,
};
use rstlab_cli::{
    LogFormat, LogOptions, MAX_RECORDS, WitnessOptions, evidence, log_filter, log_format,
};
use rstlab_wire::Reads;
use rstlab_wire::close::{Bounds, Policy};
use rstlab_witness::{Keeping, Level, Role};

use crate::Mode;
use crate::mode::{BodyKind, CloseKind};

/// How long a kept connection waits for the next request.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

rstlab_cli::settings! {
    /// The server's settings, checked. [`Default`] gives the documented defaults.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct UpstreamConfig for "UPSTREAM" {
        /// Address to listen on, host:port; port 0 takes a free one (the log says which).
        listen: String = "127.0.0.1:8000", host_port(), fixed;

        /// Threads that serve connections, each with an event loop and a listening socket of its own. cores: one for
        /// each core.
        workers: NonZeroUsize = "cores", workers(), fixed;

        /// What to do with a request's body, and how to close after the response.
        mode: Mode = "lazy", mode(), live;

        /// Length of each response's body, in bytes.
        response_bytes: u64 = "614400", bytes(), live;

        /// Status of each response, 200 to 599.
        status: StatusCode = "200", status(), live;

        /// Size of the send buffer of each connection (SO_SNDBUF): as much of a response may wait in the kernel when
        /// the server closes, and is lost by a RST. kernel: the kernel's own size, which grows. A size over
        /// net.core.wmem_max is the same as kernel.
        sndbuf: Option<u32> = "1MiB", socket_buffer(), fixed;

        /// Time the app takes before it answers, after it has read what it reads.
        think: Duration = "0ms", time(), live;

        /// Largest body that mode cap accepts, in bytes; 0 refuses every body.
        max_body: u64 = "1MiB", bytes(), live;

        /// Time that mode delay sleeps between response and close.
        close_delay: Duration = "1s", time(), live;

        /// Longest time that mode linger reads on after its half-close.
        linger_timeout: Duration = "2s", time_limit(), live;

        /// Largest number of bytes that mode linger reads after its half-close.
        linger_bytes: u64 = "64KiB", bytes(), live;

        /// How to find out why a connection was reset: auto takes the strongest that works.
        witness: Option<Level> = "auto", evidence(), fixed;

        /// Directory for a record of each connection that was reset or cut, for `rstlab show`; rstlab-proxy may
        /// share it. Without it nothing is recorded.
        record: Option<PathBuf> = "", directory(), fixed;

        /// Largest number of records kept there, the newest; each is at most 256 KiB long.
        record_most: usize = "1000", count(MAX_RECORDS), fixed;

        /// Mode of the files there. 0600: only the user of this program reads them. 0640: its group too. 0644: everybody.
        record_mode: u32 = "0600", file_mode(), fixed;

        /// on: captured packets are kept with up to 1,500 bytes each, bodies and credentials included. off: with the
        /// first 64 bytes of each segment's payload, and credentials blanked.
        record_payload: bool = "off", on_off(), fixed;

        /// Which log lines to write: error, warn, info, debug, trace, or a tracing filter.
        log: String = "info", log_filter(), fixed, variable "LOG";

        /// How to write them, on standard error: text or json.
        log_format: LogFormat = "text", log_format(), fixed, variable "LOG_FORMAT";

        beside {
            /// The program rstlab-upstream, which a mode with a child process starts for each connection.
            program: Option<PathBuf>;
        }
    }
}

/// A mode by its name.
fn mode() -> Allowed<impl Fn(&str) -> Option<Mode>> {
    allowed::choice(Mode::ALL.map(|mode| (mode.as_str(), mode))).meaning(Mode::meanings())
}

fn status() -> Allowed<impl Fn(&str) -> Option<StatusCode>> {
    Allowed::new("a final status, 200 to 599", |text: &str| {
        let status: StatusCode = text.parse().ok()?;
        (200..=599).contains(&status.as_u16()).then_some(status)
    })
}

/// The treatment of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyPolicy {
    /// Not read.
    Ignore,
    /// Read to its end and thrown away.
    Drain,
    /// As `Drain`, up to this number of bytes (of content, without chunk framing); a larger body is answered with 413.
    Cap(u64),
}

impl BodyPolicy {
    /// The bytes that have to be read from the connection for this policy.
    pub(crate) fn reads(self) -> Reads {
        match self {
            BodyPolicy::Ignore => Reads::HeadOnly,
            BodyPolicy::Drain | BodyPolicy::Cap(_) => Reads::Everything,
        }
    }
}

impl UpstreamConfig {
    /// The command line.
    pub fn command() -> Command {
        let command = Command::new("rstlab-upstream")
            .version(env!("CARGO_PKG_VERSION"))
            .about("An application server that ignores bodies and closes carelessly, or does better")
            .long_about(
                "An application server that ignores bodies and closes carelessly, or does better.\n\n\
                 It answers every request with a body of `x` and closes the connection. The mode says what it does \
                 with the request's body and how it closes.",
            );
        // The child reports to its parent, and does not outlive it.
        let parent = Arg::new("parent").long("parent").required(true);
        rstlab_cli::with_settings(command, &Self::settings()).subcommand(
            Command::new("answer")
                .about("Answers on the connection that is standard input, and dies by SIGKILL")
                .hide(true)
                .arg(parent.value_parser(value_parser!(i32))),
        )
    }

    /// The number of the process that started this one to answer a connection, if one did.
    pub fn parent(matches: &ArgMatches) -> Option<i32> {
        let answer = matches.subcommand_matches("answer")?;
        answer.get_one("parent").copied()
    }

    /// The mode's body policy, with its number.
    pub fn body_policy(&self) -> BodyPolicy {
        match self.mode.row().body {
            BodyKind::Ignore => BodyPolicy::Ignore,
            BodyKind::Drain => BodyPolicy::Drain,
            BodyKind::Cap => BodyPolicy::Cap(self.max_body),
        }
    }

    /// The mode's close policy, with its numbers: how a connection is closed after the mode's response. After a refusal
    /// (400, 408, 413, 431) a connection is always closed in stages.
    pub fn close_policy(&self) -> Policy {
        match self.mode.row().close {
            CloseKind::Immediate => Policy::Immediate,
            CloseKind::Delay => Policy::Delay(self.close_delay),
            CloseKind::Linger => Policy::Linger(self.linger()),
            CloseKind::Abort => Policy::Abort,
            CloseKind::OnArrival => Policy::OnArrival(KEEP_ALIVE),
        }
    }

    /// How long a lingering close reads on.
    pub fn linger(&self) -> Bounds {
        Bounds {
            time: self.linger_timeout,
            bytes: Some(self.linger_bytes),
        }
    }

    /// The settings of the witness.
    pub fn witness_options(&self) -> WitnessOptions {
        WitnessOptions {
            role: Role::Upstream,
            level: self.witness,
            directory: self.record.clone(),
            keeping: Keeping {
                most: self.record_most,
                mode: self.record_mode,
                payload: self.record_payload,
            },
        }
    }

    /// The settings of the log.
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            filter: self.log.clone(),
            format: self.log_format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<UpstreamConfig, String> {
        let flags = [&["rstlab-upstream"], flags].concat();
        let matches = UpstreamConfig::command()
            .try_get_matches_from(flags)
            .unwrap();
        UpstreamConfig::read(&matches).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        UpstreamConfig::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let defaults = UpstreamConfig {
            listen: "127.0.0.1:8000".to_owned(),
            mode: Mode::Lazy,
            response_bytes: 614_400,
            status: StatusCode::OK,
            sndbuf: Some(1 << 20),
            think: Duration::ZERO,
            max_body: 1024 * 1024,
            close_delay: Duration::from_secs(1),
            linger_timeout: Duration::from_secs(2),
            linger_bytes: 64 * 1024,
            witness: None,
            record: None,
            record_most: 1000,
            record_mode: 0o600,
            record_payload: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            ..UpstreamConfig::default()
        };
        assert_eq!(defaults.program, None);
        assert_eq!(UpstreamConfig::default(), defaults);
        assert_eq!(config(&[]), Ok(defaults));
    }

    #[test]
    fn a_flag_has_its_variable_s_name_too() {
        let config = config(&[
            "--upstream-mode=cap",
            "--upstream-max-body=10",
            "--status=503",
        ])
        .unwrap();
        assert_eq!((config.mode, config.max_body), (Mode::Cap, 10));
        assert_eq!(config.status, 503);
    }

    #[test]
    fn what_records_keep_is_set_by_three_settings() {
        let flags = [
            "--record-most=7",
            "--record-mode=0640",
            "--record-payload=on",
        ];
        let keeping = Keeping {
            most: 7,
            mode: 0o640,
            payload: true,
        };
        assert_eq!(config(&flags).unwrap().witness_options().keeping, keeping);
    }

    #[test]
    fn every_bad_setting_is_named() {
        let text = config(&[
            "--listen=8000",
            "--mode=lzy",
            "--response-bytes=much",
            "--status=199",
            "--sndbuf=1KiB",
            "--think=1",
            "--max-body=-1",
            "--close-delay=soon",
            "--linger-timeout=0s",
            "--linger-bytes=",
            "--witness=strong",
            "--record-most=0",
            "--log=rstlab=loud",
            "--log-format=xml",
        ])
        .unwrap_err();
        for part in [
            "14 bad settings",
            "UPSTREAM_LISTEN=\"8000\"",
            "UPSTREAM_MODE=\"lzy\"; allowed: lazy, drain, cap, delay, linger, abort, \
             truncate, idle-close, kill",
            "UPSTREAM_RESPONSE_BYTES=\"much\"",
            "UPSTREAM_STATUS=\"199\"; allowed: a final status, 200 to 599",
            "UPSTREAM_SNDBUF=\"1KiB\"; allowed: kernel, or a number of bytes from 4KiB",
            "UPSTREAM_THINK=\"1\"",
            "UPSTREAM_MAX_BODY=\"-1\"",
            "UPSTREAM_CLOSE_DELAY=\"soon\"",
            "UPSTREAM_LINGER_TIMEOUT=\"0s\"",
            "UPSTREAM_LINGER_BYTES=\"\"",
            "UPSTREAM_WITNESS=\"strong\"; allowed: auto, sockets, counters, packets, kernel",
            "UPSTREAM_RECORD_MOST=\"0\"; allowed: a number from 1 to 10000",
            "LOG=\"rstlab=loud\"",
            "LOG_FORMAT=\"xml\"",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_send_buffer_has_a_size_or_is_the_kernel_s() {
        assert_eq!(config(&["--sndbuf=64KiB"]).unwrap().sndbuf, Some(65_536));
        assert_eq!(config(&["--sndbuf=kernel"]).unwrap().sndbuf, None);
    }

    #[test]
    fn a_status_is_final_and_known() {
        for bad in ["100", "199", "600", "20", "2000", "ok", ""] {
            assert_eq!((status().parse)(bad), None, "{bad}");
        }
        assert_eq!((status().parse)("599").unwrap(), 599);
    }

    #[test]
    fn a_mode_is_a_body_policy_times_a_close_policy() {
        let policies = Mode::ALL.map(|mode| {
            let config = UpstreamConfig {
                mode,
                ..UpstreamConfig::default()
            };
            (config.body_policy(), config.close_policy())
        });
        let linger = UpstreamConfig::default().linger();
        assert_eq!(
            policies,
            [
                (BodyPolicy::Ignore, Policy::Immediate),
                (BodyPolicy::Drain, Policy::Immediate),
                (BodyPolicy::Cap(1_048_576), Policy::Immediate),
                (BodyPolicy::Ignore, Policy::Delay(Duration::from_secs(1))),
                (BodyPolicy::Ignore, Policy::Linger(linger)),
                (BodyPolicy::Ignore, Policy::Abort),
                (BodyPolicy::Drain, Policy::Immediate),
                (BodyPolicy::Drain, Policy::OnArrival(KEEP_ALIVE)),
                (BodyPolicy::Ignore, Policy::Immediate),
            ]
        );
    }
}
