//! The settings of rstlab-proxy.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use rstlab_cli::allowed::{
    byte_limit, choice, count, directory, file_mode, host_port, on_off, socket_buffer, time,
    time_limit, workers,
};
use rstlab_cli::{
    LogFormat, LogOptions, MAX_RECORDS, WitnessOptions, evidence, log_filter, log_format,
};
use rstlab_wire::OnWriteError;
use rstlab_witness::{Keeping, Level, Role};

rstlab_cli::settings! {
    /// The proxy's settings, checked. [`Default`] gives the documented defaults.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ProxyConfig for "PROXY" {
        /// Address to listen on, host:port; port 0 takes a free one and logs it
        listen: String = "127.0.0.1:8080", host_port(), fixed;

        /// The server to forward to, host:port; a name is resolved at each connect
        upstream: String = "127.0.0.1:8000", host_port(), fixed;

        /// Threads that serve clients, each with an event loop, a listening socket and kept connections of its own.
        /// cores: one for each core
        workers: NonZeroUsize = "cores", workers(), fixed;

        /// split: head and body in two writev(2) calls. joined: one writev(2) that carries the head and the first
        /// body bytes, all of them if they fit in 64 KiB
        writes: Writes = "split", choice(&Writes::WORDS), live;

        /// Pause between the two writes of `split`; nothing is read meanwhile. Not used by `joined`
        gap: Duration = "0ms", time(), live;

        /// Largest request body, in bytes; a larger one is answered with 413. 0 is no cap
        max_body: Option<u64> = "1MiB", byte_limit(), live;

        /// read-on: when sending fails because the upstream reset the connection, go on reading: its answer may
        /// lie in the queue. give-up: answer 502 at once, as nginx does
        on_write_error: OnWriteError = "read-on", choice(&ON_WRITE_ERROR), live;

        /// on: each worker keeps up to 32 upstream connections that are idle, 60 s each, for its next requests. A request that
        /// fails on one is answered with 502, never sent again. off: a fresh connection for each request
        upstream_keepalive: bool = "off", on_off(), fixed;

        /// Size of the receive buffer of an upstream connection (SO_RCVBUF): as much of a response may arrive before
        /// the proxy reads, and is safe from a RST. kernel: the kernel's own size, which grows
        rcvbuf: Option<u32> = "kernel", socket_buffer(), live;

        /// on: a response of 256 KiB or more, of known length, goes from socket to socket in the kernel, by splice(2).
        /// off: it is copied by recv(2) and writev(2), as nginx does
        splice: bool = "off", on_off(), live;

        /// Time limit for connecting to the upstream, name resolution included; then 504
        connect_timeout: Duration = "5s", time_limit(), live;

        /// Time limit for the head of the upstream's response, from the request's last byte on; then 504. Interim
        /// responses (1xx) do not prolong it; more than 100 of them are answered with 502. The same limit holds
        /// between two successful reads of the response's body
        read_timeout: Duration = "60s", time_limit(), live;

        /// Time limit between two successful writes to the upstream; then 504
        send_timeout: Duration = "60s", time_limit(), live;

        /// Time limit for a client's whole request head; then 408
        client_head_timeout: Duration = "60s", time_limit(), fixed;

        /// Time limit between two successful reads of a client's body; then 408
        client_body_timeout: Duration = "60s", time_limit(), live;

        /// How to find out why a connection was reset: auto takes the strongest that works
        witness: Option<Level> = "auto", evidence(), fixed;

        /// Directory for a record of each upstream connection that was reset or cut, for `rstlab show`;
        /// rstlab-upstream may share it. Without it nothing is recorded
        record: Option<PathBuf> = "", directory(), fixed;

        /// Largest number of records kept there, the newest; each is at most 256 KiB long
        record_most: usize = "1000", count(MAX_RECORDS), fixed;

        /// Mode of the files there. 0600: only the user of this program reads them. 0640: its group too. 0644: everybody
        record_mode: u32 = "0600", file_mode(), fixed;

        /// on: captured packets are kept with up to 1,500 bytes each, bodies and credentials included. off: with the
        /// first 64 bytes of each segment's payload, and credentials blanked
        record_payload: bool = "off", on_off(), fixed;

        /// What to log: error, warn, info, debug, trace, or a filter such as rstlab_proxy=debug
        log: String = "info", log_filter(), fixed, variable "LOG";

        /// text or json, one line per event, on standard error
        log_format: LogFormat = "text", log_format(), fixed, variable "LOG_FORMAT";
    }
}

const ON_WRITE_ERROR: [(&str, OnWriteError); 2] = [
    ("read-on", OnWriteError::ReadOn),
    ("give-up", OnWriteError::GiveUp),
];

/// How a request's head and body are written to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// In two `writev(2)` calls, [`ProxyConfig::gap`] apart.
    Split,
    /// In one `writev(2)` call, as far as the body fits in [`rstlab_wire::GATHER_BYTES`].
    Joined,
}

impl Writes {
    const WORDS: [(&str, Writes); 2] = [("split", Writes::Split), ("joined", Writes::Joined)];
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS[*self as usize].0)
    }
}

impl ProxyConfig {
    /// The command line.
    pub fn command() -> Command {
        let command = Command::new("rstlab-proxy")
            .version(env!("CARGO_PKG_VERSION"))
            .about(
                "A reverse proxy that forwards a request's head and body in two writes, as nginx does when they reach \
                 it apart, and tells every connection reset it meets: when, what was lost, and whether it did harm",
            );
        rstlab_cli::with_settings(command, &Self::settings())
    }

    /// The upstream's port.
    pub fn upstream_port(&self) -> u16 {
        // The settings are checked: there is a port.
        let port = self.upstream.rsplit(':').next();
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    /// The pause between head and body; zero if they go out together.
    pub fn gap(&self) -> Duration {
        match self.writes {
            Writes::Split => self.gap,
            Writes::Joined => Duration::ZERO,
        }
    }

    /// The settings of the witness.
    pub fn witness_options(&self) -> WitnessOptions {
        WitnessOptions {
            role: Role::Proxy,
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

    fn config(flags: &[&str]) -> Result<ProxyConfig, String> {
        let matches = ProxyConfig::command().get_matches_from([&["rstlab-proxy"], flags].concat());
        ProxyConfig::read(&matches).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        ProxyConfig::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let defaults = ProxyConfig {
            listen: "127.0.0.1:8080".to_owned(),
            upstream: "127.0.0.1:8000".to_owned(),
            writes: Writes::Split,
            gap: Duration::ZERO,
            max_body: Some(1024 * 1024),
            on_write_error: OnWriteError::ReadOn,
            upstream_keepalive: false,
            rcvbuf: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            client_head_timeout: Duration::from_secs(60),
            client_body_timeout: Duration::from_secs(60),
            witness: None,
            record: None,
            record_most: 1000,
            record_mode: 0o600,
            record_payload: false,
            log: "info".to_owned(),
            ..ProxyConfig::default()
        };
        assert_eq!(defaults.log_format, LogFormat::Text);
        assert_eq!(ProxyConfig::default(), defaults);
        assert_eq!(config(&[]), Ok(defaults));
    }

    #[test]
    fn each_word_of_writes_reads_back() {
        for (word, writes) in Writes::WORDS {
            assert_eq!(writes.to_string(), word);
        }
    }

    #[test]
    fn a_flag_has_its_variable_s_name_too() {
        let config = config(&[
            "--proxy-gap",
            "500us",
            "--proxy-max-body=0",
            "--proxy-upstream-keepalive=on",
        ])
        .unwrap();
        assert!(config.upstream_keepalive);
        let gap = Duration::from_micros(500);
        assert_eq!((config.writes, config.gap()), (Writes::Split, gap));
        assert_eq!(config.max_body, None);
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
        for bad in ["0777", "0660", "0400", "640x", ""] {
            assert!(config(&[&format!("--record-mode={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn joined_writes_have_no_gap() {
        let config = config(&["--gap=1ms", "--writes=joined"]).unwrap();
        assert_eq!(config.gap(), Duration::ZERO);
    }

    #[test]
    fn every_bad_setting_is_named_at_once() {
        let text = config(&[
            "--listen=8080",
            "--writes=both",
            "--gap=1",
            "--max-body=big",
            "--on-write-error=retry",
            "--rcvbuf=2GiB",
            "--upstream-keepalive=yes",
            "--read-timeout=0s",
            "--log-format=xml",
        ])
        .unwrap_err();
        for name in [
            "PROXY_LISTEN=\"8080\"",
            "PROXY_WRITES=\"both\"; allowed: split, joined",
            "PROXY_GAP",
            "PROXY_MAX_BODY",
            "PROXY_ON_WRITE_ERROR",
            "PROXY_UPSTREAM_KEEPALIVE=\"yes\"; allowed: on, off",
            "PROXY_RCVBUF",
            "PROXY_READ_TIMEOUT",
            "LOG_FORMAT",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }
}
