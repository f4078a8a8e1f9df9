use clap::{Parser, Subcommand};
use http::StatusCode;
use rstlab_cli::{BadSettings, LogOptions, Settings, WitnessOptions};
use rstlab_wire::close::Bounds;
use rstlab_witness::Role;

use crate::{Config, Mode};

/// An application server that ignores bodies and closes carelessly, or does better.
///
/// It answers every request with a body of `x` and closes the connection. The mode says what it does with
/// the request's body and how it closes.
// Every value is text here: clap would stop at the first bad one, and we name them all.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Each setting can be given as a flag (--mode), as a flag of its full name (--upstream-mode) \
                  or in the environment (UPSTREAM_MODE); a flag wins.\n\
                  Times have a unit: 500us, 10ms, 2s. Bytes may have one: 614400, 64KiB, 10GB.\n\
                  Exit codes: 0 stopped by SIGTERM or SIGINT, 1 cannot listen, or no such \
                  witness, 2 bad settings."
)]
pub struct Args {
    /// Address to listen on, host:port; port 0 takes a free one (the log says which).
    #[arg(
        long,
        global = true,
        alias = "upstream-listen",
        env = "UPSTREAM_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8000"
    )]
    pub listen: String,

    /// What to do with a request's body, and how to close after the response.
    ///
    ///   lazy    ignores the body and closes at once: the bug. Unread bytes, or bytes
    ///           that come later, make the kernel send a RST
    ///   drain   reads the body to its end, throws it away, closes at once
    ///   cap     reads the body up to --max-body, closes at once; over it: 413, then a
    ///           staged close, so that the client gets the 413
    ///   delay   ignores the body, sleeps for --close-delay, closes: moves the RST,
    ///           does not prevent it
    ///   linger  ignores the body, half-closes, reads on within --linger-timeout and
    ///           --linger-bytes, closes: as gunicorn 26 and nginx do (RFC 9112, 9.6)
    ///   abort   ignores the body, closes with SO_LINGER 0: a RST for another reason
    ///   truncate    reads the body, sends the head and half of the response's body,
    ///               closes: a FIN in the middle of the response, no RST
    ///   idle-close  reads the body, keeps the connection, closes it when the next
    ///               request has come (unread, so a RST): the keep-alive race, always
    ///               lost. Closes at once if the request says Connection: close, and
    ///               after 60 s without a next request
    ///   kill        ignores the body, sends the head and half of the response's body, and
    ///               is killed by SIGKILL: each connection has a process of its own, 64
    ///               at once. Unread bytes: a RST; nothing unread: a FIN
    #[arg(
        long,
        alias = "upstream-mode",
        env = "UPSTREAM_MODE",
        default_value = "lazy",
        verbatim_doc_comment
    )]
    pub mode: String,

    /// Length of each response's body, in bytes.
    #[arg(
        long,
        alias = "upstream-response-bytes",
        env = "UPSTREAM_RESPONSE_BYTES",
        value_name = "BYTES",
        default_value = "614400"
    )]
    pub response_bytes: String,

    /// Status of each response, 200 to 599.
    #[arg(
        long,
        alias = "upstream-status",
        env = "UPSTREAM_STATUS",
        default_value = "200"
    )]
    pub status: String,

    /// Time the app takes before it answers, after it has read what it reads.
    #[arg(
        long,
        alias = "upstream-think",
        env = "UPSTREAM_THINK",
        value_name = "TIME",
        default_value = "0ms"
    )]
    pub think: String,

    /// Largest body that mode cap accepts, in bytes; 0 refuses every body.
    #[arg(
        long,
        alias = "upstream-max-body",
        env = "UPSTREAM_MAX_BODY",
        value_name = "BYTES",
        default_value = "1MiB"
    )]
    pub max_body: String,

    /// Time that mode delay sleeps between response and close.
    #[arg(
        long,
        alias = "upstream-close-delay",
        env = "UPSTREAM_CLOSE_DELAY",
        value_name = "TIME",
        default_value = "1s"
    )]
    pub close_delay: String,

    /// Longest time that mode linger reads on after its half-close.
    #[arg(
        long,
        alias = "upstream-linger-timeout",
        env = "UPSTREAM_LINGER_TIMEOUT",
        value_name = "TIME",
        default_value = "2s"
    )]
    pub linger_timeout: String,

    /// Most bytes that mode linger reads after its half-close.
    #[arg(
        long,
        alias = "upstream-linger-bytes",
        env = "UPSTREAM_LINGER_BYTES",
        value_name = "BYTES",
        default_value = "64KiB"
    )]
    pub linger_bytes: String,

    /// How to find out why a connection was reset: auto takes the strongest that works.
    ///
    ///   sockets   its own queues; needs no privilege
    ///   counters  the same, and the counters of the network namespace; needs no privilege
    ///   packets   the sockets, and a capture of the packets; needs CAP_NET_RAW
    ///   kernel    the sockets, and the kernel's own reason; needs root and tracefs
    #[arg(
        long,
        alias = "upstream-witness",
        env = "UPSTREAM_WITNESS",
        default_value = "auto",
        verbatim_doc_comment
    )]
    pub witness: String,

    /// Directory for a record of each connection that was reset or cut, for `rstlab show`; rstlab-proxy may
    /// share it. Without it nothing is recorded.
    #[arg(
        long,
        alias = "upstream-record",
        env = "UPSTREAM_RECORD",
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    pub record: String,

    /// Most records kept there, the newest; each is at most 256 KiB long.
    #[arg(
        long,
        alias = "upstream-record-most",
        env = "UPSTREAM_RECORD_MOST",
        value_name = "NUMBER",
        default_value = "100"
    )]
    pub record_most: String,

    /// Which log lines to write: error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to write them, on standard error: text or json.
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: String,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do besides serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Asks the server that listens on --listen whether it answers: exit 0 if so, 1 if not.
    Health,
    /// Answers on the connection that is standard input, and dies by SIGKILL. The mode kill starts it.
    #[command(hide = true)]
    Answer {
        /// The process to tell, and not to outlive.
        #[arg(long)]
        parent: i32,
    },
}

impl Args {
    /// The settings, checked.
    ///
    /// # Errors
    /// Names every bad value at once, with what is allowed.
    pub fn config(&self) -> Result<(Config, WitnessOptions, LogOptions), BadSettings> {
        let mut settings = Settings::default();
        let listen = settings.host_port("UPSTREAM_LISTEN", &self.listen);
        let modes = Mode::ALL.map(|mode| (mode.as_str(), mode));
        let mode = settings.choice("UPSTREAM_MODE", &self.mode, &modes);
        let response_bytes = settings.bytes("UPSTREAM_RESPONSE_BYTES", &self.response_bytes);
        let allowed = "a final status, 200 to 599";
        let status = settings.read("UPSTREAM_STATUS", &self.status, allowed, status);
        let think = settings.time("UPSTREAM_THINK", &self.think);
        let max_body = settings.bytes("UPSTREAM_MAX_BODY", &self.max_body);
        let close_delay = settings.time("UPSTREAM_CLOSE_DELAY", &self.close_delay);
        let linger_timeout = settings.time_limit("UPSTREAM_LINGER_TIMEOUT", &self.linger_timeout);
        let linger_bytes = settings.bytes("UPSTREAM_LINGER_BYTES", &self.linger_bytes);
        let witness = WitnessOptions::read(
            &mut settings,
            Role::Upstream,
            &self.witness,
            &self.record,
            &self.record_most,
        );
        let log = LogOptions::read(&mut settings, &self.log, &self.log_format);

        let all = || {
            let config = Config {
                listen: listen?,
                mode: mode?,
                response_bytes: response_bytes?,
                status: status?,
                think: think?,
                max_body: max_body?,
                close_delay: close_delay?,
                linger: Bounds {
                    time: linger_timeout?,
                    bytes: Some(linger_bytes?),
                },
                program: None,
            };
            Some((config, witness?, log?))
        };
        settings.finish(all())
    }
}

fn status(text: &str) -> Option<StatusCode> {
    text.parse()
        .ok()
        .filter(|status: &StatusCode| (200..=599).contains(&status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let args = Args::try_parse_from([&["rstlab-upstream"], flags].concat()).unwrap();
        args.config()
            .map(|(config, ..)| config)
            .map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        assert_eq!(config(&[]), Ok(Config::default()));
    }

    #[test]
    fn the_setting_s_own_name_works_as_a_flag() {
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
    fn every_bad_setting_is_named() {
        let text = config(&[
            "--listen=8000",
            "--mode=lzy",
            "--response-bytes=much",
            "--status=199",
            "--think=1",
            "--max-body=-1",
            "--close-delay=soon",
            "--linger-timeout=0s",
            "--linger-bytes=",
            "--log=rstlab=loud",
            "--log-format=xml",
        ])
        .unwrap_err();
        for part in [
            "11 bad settings",
            "UPSTREAM_LISTEN=\"8000\"",
            "UPSTREAM_MODE=\"lzy\"; allowed: lazy, drain, cap, delay, linger, abort, \
             truncate, idle-close, kill",
            "UPSTREAM_RESPONSE_BYTES=\"much\"",
            "UPSTREAM_STATUS=\"199\"; allowed: a final status, 200 to 599",
            "UPSTREAM_THINK=\"1\"",
            "UPSTREAM_MAX_BODY=\"-1\"",
            "UPSTREAM_CLOSE_DELAY=\"soon\"",
            "UPSTREAM_LINGER_TIMEOUT=\"0s\"",
            "UPSTREAM_LINGER_BYTES=\"\"",
            "LOG=\"rstlab=loud\"",
            "LOG_FORMAT=\"xml\"",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_status_is_final_and_known() {
        for bad in ["100", "199", "600", "20", "2000", "ok", ""] {
            assert_eq!(status(bad), None, "{bad}");
        }
        assert_eq!(status("599").unwrap(), 599);
    }
}
