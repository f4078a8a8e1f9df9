use std::fmt;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rstlab_cli::{BadSettings, LogOptions, Settings, WitnessOptions};
use rstlab_wire::OnWriteError;
use rstlab_witness::Role;

/// A reverse proxy that forwards a request's head and body in two writes, as nginx does when they reach it
/// apart, and tells every connection reset it meets: when, what was lost, and whether it did harm.
///
/// Each option can be given as an environment variable. Times need a unit (500us, 1ms, 60s); sizes may have
/// one (614400, 64KiB, 1MiB).
#[derive(Debug, Parser)]
#[command(
    name = "rstlab-proxy",
    version,
    after_help = "Each setting can be given as a flag (--gap), as a flag of its full name (--proxy-gap) or in the \
                  environment (PROXY_GAP); a flag wins.\n\
                  Exit codes: 0 stopped by SIGTERM or SIGINT, 1 cannot listen, or no such \
                  witness, 2 bad settings."
)]
pub struct Args {
    /// Address to listen on, host:port; port 0 takes a free one and logs it
    #[arg(
        long,
        alias = "proxy-listen",
        env = "PROXY_LISTEN",
        default_value = "127.0.0.1:8080",
        global = true
    )]
    listen: String,

    /// The server to forward to, host:port; a name is resolved at each connect
    #[arg(
        long,
        alias = "proxy-upstream",
        env = "PROXY_UPSTREAM",
        default_value = "127.0.0.1:8000"
    )]
    upstream: String,

    /// split: head and body in two writev(2) calls. joined: one writev(2) that carries the head and the first
    /// body bytes, all of them if they fit in 64 KiB
    #[arg(
        long,
        alias = "proxy-writes",
        env = "PROXY_WRITES",
        default_value = "split"
    )]
    writes: String,

    /// Pause between the two writes of `split`; nothing is read meanwhile. Not used by `joined`
    #[arg(long, alias = "proxy-gap", env = "PROXY_GAP", default_value = "0ms")]
    gap: String,

    /// Largest request body, in bytes; a larger one is answered with 413. 0 is no cap
    #[arg(
        long,
        alias = "proxy-max-body",
        env = "PROXY_MAX_BODY",
        default_value = "1MiB"
    )]
    max_body: String,

    /// read-on: when sending fails because the upstream reset the connection, go on reading: its answer may
    /// lie in the queue. give-up: answer 502 at once, as nginx does
    #[arg(
        long,
        alias = "proxy-on-write-error",
        env = "PROXY_ON_WRITE_ERROR",
        default_value = "read-on"
    )]
    on_write_error: String,

    /// on: keep up to 32 upstream connections that are idle, 60 s each, for the next requests. A request that
    /// fails on one is answered with 502, never sent again. off: a fresh connection for each request
    #[arg(
        long,
        alias = "proxy-upstream-keepalive",
        env = "PROXY_UPSTREAM_KEEPALIVE",
        default_value = "off"
    )]
    upstream_keepalive: String,

    /// Time limit for connecting to the upstream, name resolution included; then 504
    #[arg(
        long,
        alias = "proxy-connect-timeout",
        env = "PROXY_CONNECT_TIMEOUT",
        default_value = "5s"
    )]
    connect_timeout: String,

    /// Time limit between two successful reads from the upstream, while it is to answer; then 504
    #[arg(
        long,
        alias = "proxy-read-timeout",
        env = "PROXY_READ_TIMEOUT",
        default_value = "60s"
    )]
    read_timeout: String,

    /// Time limit between two successful writes to the upstream; then 504
    #[arg(
        long,
        alias = "proxy-send-timeout",
        env = "PROXY_SEND_TIMEOUT",
        default_value = "60s"
    )]
    send_timeout: String,

    /// Time limit for a client's whole request head; then 408
    #[arg(
        long,
        alias = "proxy-client-head-timeout",
        env = "PROXY_CLIENT_HEAD_TIMEOUT",
        default_value = "60s"
    )]
    client_head_timeout: String,

    /// Time limit between two successful reads of a client's body; then 408
    #[arg(
        long,
        alias = "proxy-client-body-timeout",
        env = "PROXY_CLIENT_BODY_TIMEOUT",
        default_value = "60s"
    )]
    client_body_timeout: String,

    /// How to find out why a connection was reset: auto takes the strongest that works.
    ///
    ///   sockets   its own sockets; needs no privilege
    ///   counters  the same, and the counters of the network namespace; needs no privilege
    ///   packets   the sockets, and a capture of the packets; needs CAP_NET_RAW
    ///   kernel    the sockets, and the kernel's own reason; needs root and tracefs
    #[arg(
        long,
        alias = "proxy-witness",
        env = "PROXY_WITNESS",
        default_value = "auto",
        verbatim_doc_comment
    )]
    witness: String,

    /// Directory for a record of each upstream connection that was reset or cut, for `rstlab show`;
    /// rstlab-upstream may share it. Without it nothing is recorded
    #[arg(
        long,
        alias = "proxy-record",
        env = "PROXY_RECORD",
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    record: String,

    /// Most records kept there, the newest; each is at most 256 KiB long
    #[arg(
        long,
        alias = "proxy-record-most",
        env = "PROXY_RECORD_MOST",
        value_name = "NUMBER",
        default_value = "100"
    )]
    record_most: String,

    /// What to log: error, warn, info, debug, trace, or a filter such as rstlab_proxy=debug
    #[arg(long, env = "LOG", default_value = "info", global = true)]
    log: String,

    /// text or json, one line per event, on standard error
    #[arg(long, env = "LOG_FORMAT", default_value = "text", global = true)]
    log_format: String,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the proxy that listens on --listen whether it answers; exit code 0 if it does, 1 if not
    Health,
}

/// How a request's head and body are written to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// In two `writev(2)` calls, `gap` apart.
    Split {
        /// The pause between them.
        gap: Duration,
    },
    /// In one `writev(2)` call, as far as the body fits in [`rstlab_wire::GATHER_BYTES`].
    Joined,
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Writes::Split { .. } => "split",
            Writes::Joined => "joined",
        })
    }
}

/// The proxy's settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where it forwards to, `host:port`.
    pub upstream: String,
    /// How it writes a request.
    pub writes: Writes,
    /// Largest request body in bytes; `None` is no cap.
    pub max_body: Option<u64>,
    /// What it does when sending fails with a reset.
    pub on_write_error: OnWriteError,
    /// Whether it keeps upstream connections for the next requests.
    pub upstream_keepalive: bool,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Limit between two reads from the upstream.
    pub read_timeout: Duration,
    /// Limit between two writes to the upstream.
    pub send_timeout: Duration,
    /// Limit for a client's head.
    pub client_head_timeout: Duration,
    /// Limit between two reads of a client's body.
    pub client_body_timeout: Duration,
}

impl Args {
    /// Checks all settings.
    ///
    /// # Errors
    /// Names every bad one.
    pub fn config(&self) -> Result<(Config, WitnessOptions, LogOptions), BadSettings> {
        let mut settings = Settings::default();
        let config = Config::read(self, &mut settings);
        let witness = WitnessOptions::read(
            &mut settings,
            Role::Proxy,
            &self.witness,
            &self.record,
            &self.record_most,
        );
        let log = LogOptions::read(&mut settings, &self.log, &self.log_format);
        let all = || Some((config?, witness?, log?));
        settings.finish(all())
    }

    /// Whether the subcommand `health` was given.
    pub fn is_health_check(&self) -> bool {
        matches!(self.command, Some(Command::Health))
    }
}

impl Config {
    /// The upstream's port.
    pub fn upstream_port(&self) -> u16 {
        // The settings are checked: there is one.
        let port = self.upstream.rsplit(':').next();
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    /// The pause between head and body; zero where they go out together.
    pub fn gap(&self) -> Duration {
        match self.writes {
            Writes::Split { gap } => gap,
            Writes::Joined => Duration::ZERO,
        }
    }

    /// Reads every setting before it gives up on one, so that all the bad ones are noted.
    fn read(args: &Args, settings: &mut Settings) -> Option<Self> {
        let listen = settings.host_port("PROXY_LISTEN", &args.listen);
        let upstream = settings.host_port("PROXY_UPSTREAM", &args.upstream);
        let split = settings.choice(
            "PROXY_WRITES",
            &args.writes,
            &[("split", true), ("joined", false)],
        );
        let gap = settings.time("PROXY_GAP", &args.gap);
        let max_body = settings.bytes("PROXY_MAX_BODY", &args.max_body);
        let on_write_error = settings.choice(
            "PROXY_ON_WRITE_ERROR",
            &args.on_write_error,
            &[
                ("read-on", OnWriteError::ReadOn),
                ("give-up", OnWriteError::GiveUp),
            ],
        );
        let upstream_keepalive = settings.choice(
            "PROXY_UPSTREAM_KEEPALIVE",
            &args.upstream_keepalive,
            &[("on", true), ("off", false)],
        );
        let mut limit = |name, value| settings.time_limit(name, value);
        let connect_timeout = limit("PROXY_CONNECT_TIMEOUT", &args.connect_timeout);
        let read_timeout = limit("PROXY_READ_TIMEOUT", &args.read_timeout);
        let send_timeout = limit("PROXY_SEND_TIMEOUT", &args.send_timeout);
        let client_head_timeout = limit("PROXY_CLIENT_HEAD_TIMEOUT", &args.client_head_timeout);
        let client_body_timeout = limit("PROXY_CLIENT_BODY_TIMEOUT", &args.client_body_timeout);
        let gap = gap?;
        Some(Self {
            listen: listen?,
            upstream: upstream?,
            writes: if split? {
                Writes::Split { gap }
            } else {
                Writes::Joined
            },
            max_body: Some(max_body?).filter(|bytes| *bytes > 0),
            on_write_error: on_write_error?,
            upstream_keepalive: upstream_keepalive?,
            connect_timeout: connect_timeout?,
            read_timeout: read_timeout?,
            send_timeout: send_timeout?,
            client_head_timeout: client_head_timeout?,
            client_body_timeout: client_body_timeout?,
        })
    }
}

/// The defaults of the command line, whatever the environment says.
impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            upstream: "127.0.0.1:8000".to_owned(),
            writes: Writes::Split {
                gap: Duration::ZERO,
            },
            max_body: Some(1024 * 1024),
            on_write_error: OnWriteError::ReadOn,
            upstream_keepalive: false,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            client_head_timeout: Duration::from_secs(60),
            client_body_timeout: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = Args::parse_from([&["rstlab-proxy"], args].concat());
        args.config()
            .map(|(config, ..)| config)
            .map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
        assert_eq!(
            format!("{:?}", config(&[]).unwrap()),
            format!("{:?}", Config::default())
        );
    }

    #[test]
    fn a_flag_has_its_setting_s_name_too() {
        let config = config(&[
            "--proxy-gap",
            "500us",
            "--proxy-max-body=0",
            "--proxy-upstream-keepalive=on",
        ])
        .unwrap();
        assert!(config.upstream_keepalive);
        assert_eq!(
            config.writes,
            Writes::Split {
                gap: Duration::from_micros(500)
            }
        );
        assert_eq!(config.max_body, None);
    }

    #[test]
    fn every_bad_setting_is_named_at_once() {
        let text = config(&[
            "--listen=8080",
            "--writes=both",
            "--gap=1",
            "--max-body=big",
            "--on-write-error=retry",
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
            "PROXY_READ_TIMEOUT",
            "LOG_FORMAT",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }
}
