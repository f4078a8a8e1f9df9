//! The proxies of a bench: how each is configured and started.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::shared::program::own_directory;

/// A proxy as it is benched.
#[derive(Debug)]
pub(super) struct ProxySetup {
    pub(super) name: &'static str,
    /// The name of its program, which is looked up in `PATH` unless it is rstlab's own.
    pub(super) program: &'static str,
    pub(super) kind: ProxyKind,
    /// How it is configured, in words.
    pub(super) words: &'static str,
}

/// Which proxy it is, and in which of its configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyKind {
    /// rstlab-proxy with this witness, and this value of `--splice`.
    Own(&'static str, &'static str),
    /// nginx with these settings in its location.
    Nginx(&'static str),
    /// HAProxy with these settings in its defaults.
    Haproxy(&'static str),
}

/// All of them.
pub(super) const PROXIES: &[ProxySetup] = &[
    ProxySetup {
        name: "rstlab-proxy",
        program: "rstlab-proxy",
        kind: ProxyKind::Own("auto", "off"),
        words: "its defaults: the strongest evidence that works",
    },
    ProxySetup {
        name: "rstlab-proxy, sockets",
        program: "rstlab-proxy",
        kind: ProxyKind::Own("sockets", "off"),
        words: "PROXY_WITNESS=sockets",
    },
    ProxySetup {
        name: "rstlab-proxy, splice",
        program: "rstlab-proxy",
        kind: ProxyKind::Own("sockets", "on"),
        words: "PROXY_WITNESS=sockets, PROXY_SPLICE=on",
    },
    ProxySetup {
        name: "nginx",
        program: "nginx",
        kind: ProxyKind::Nginx(""),
        words: "default buffers",
    },
    ProxySetup {
        name: "nginx, 64 KiB",
        program: "nginx",
        kind: ProxyKind::Nginx(
            "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; proxy_request_buffering off;",
        ),
        words: "proxy_buffers of 64 KiB, proxy_request_buffering off",
    },
    ProxySetup {
        name: "HAProxy",
        program: "haproxy",
        kind: ProxyKind::Haproxy(""),
        words: "default options",
    },
    ProxySetup {
        name: "HAProxy, splice",
        program: "haproxy",
        kind: ProxyKind::Haproxy("option splice-request\n    option splice-response"),
        words: "option splice-request, option splice-response",
    },
];

/// The programs that rstlab-proxy is compared with.
pub(super) const PEERS: [&str; 2] = ["nginx", "haproxy"];

/// What a proxy is started with.
#[derive(Debug)]
pub(super) struct ProxyPlace<'a> {
    /// A directory for its files.
    pub(super) directory: &'a Path,
    pub(super) listen: SocketAddr,
    pub(super) upstream: SocketAddr,
    /// Whether it keeps connections to the upstream.
    pub(super) kept: bool,
    pub(super) workers: usize,
}

/// The start of a proxy.
#[derive(Debug)]
pub(super) struct ProxyStart {
    /// The program and its arguments.
    pub(super) words: Vec<String>,
    /// Variables of its environment.
    pub(super) variables: Vec<(String, String)>,
    /// How many processes it has.
    pub(super) processes: usize,
}

impl ProxySetup {
    pub(super) fn is_peer(&self) -> bool {
        !matches!(self.kind, ProxyKind::Own(..))
    }

    /// The command that prints its version.
    pub(super) fn version_command(&self) -> io::Result<Vec<String>> {
        let option = if self.is_peer() { "-v" } else { "--version" };
        Ok(vec![self.path()?, option.to_owned()])
    }

    /// Writes its configuration, and says how to start it.
    ///
    /// # Errors
    /// The configuration can't be written.
    pub(super) fn prepare(&self, place: &ProxyPlace<'_>) -> io::Result<ProxyStart> {
        let file = place.directory.join("proxy.conf");
        let mut start = ProxyStart {
            words: vec![self.path()?],
            variables: Vec::new(),
            processes: 1,
        };
        let mut add = |words: &[&str]| start.words.extend(words.iter().map(ToString::to_string));
        match self.kind {
            ProxyKind::Own(witness, splice) => {
                let (listen, upstream) = (place.listen.to_string(), place.upstream.to_string());
                let kept = if place.kept { "on" } else { "off" };
                add(&["--listen", &listen, "--upstream", &upstream]);
                add(&["--witness", witness, "--upstream-keepalive", kept]);
                add(&["--splice", splice, "--max-body", "0", "--log", "warn"]);
                let workers = place.workers.to_string();
                start.variables.push(("PROXY_WORKERS".to_owned(), workers));
            }
            ProxyKind::Nginx(settings) => {
                fs::write(&file, nginx(place, settings))?;
                let tmp = place.directory.display().to_string();
                add(&[
                    "-p",
                    &tmp,
                    "-e",
                    "stderr",
                    "-c",
                    &file.display().to_string(),
                ]);
                // The master and its workers.
                start.processes = 1 + place.workers;
            }
            ProxyKind::Haproxy(settings) => {
                fs::write(&file, haproxy(place, settings))?;
                add(&["-db", "-f", &file.display().to_string()]);
            }
        }
        Ok(start)
    }

    fn path(&self) -> io::Result<String> {
        Ok(match self.kind {
            ProxyKind::Own(..) => own_directory()?.join(self.program).display().to_string(),
            ProxyKind::Nginx(_) | ProxyKind::Haproxy(_) => self.program.to_owned(),
        })
    }
}

/// nginx's configuration. It keeps as many idle upstream connections as rstlab-proxy does.
fn nginx(place: &ProxyPlace<'_>, settings: &str) -> String {
    let (workers, listen, upstream) = (place.workers, place.listen, place.upstream);
    let tmp = place.directory.display();
    // Started by root, its workers run as a user who may not write to the directory.
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;\n",
        false => "",
    };
    let (pool, kept) = match place.kept {
        true => (
            "keepalive 32;",
            "proxy_http_version 1.1; proxy_set_header Connection \"\";",
        ),
        false => ("", ""),
    };
    format!(
        "{user}daemon off;
worker_processes {workers};
pid {tmp}/pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {tmp}/body;
    proxy_temp_path {tmp}/proxy;
    fastcgi_temp_path {tmp}/fastcgi;
    uwsgi_temp_path {tmp}/uwsgi;
    scgi_temp_path {tmp}/scgi;
    upstream upstream {{ server {upstream}; {pool} }}
    server {{
        listen {listen} backlog=4096;
        location / {{ proxy_pass http://upstream; {kept} {settings} }}
    }}
}}
"
    )
}

/// HAProxy's configuration. It keeps upstream connections unless the upstream closes them.
fn haproxy(place: &ProxyPlace<'_>, settings: &str) -> String {
    let (workers, listen, upstream) = (place.workers, place.listen, place.upstream);
    format!(
        "global
    nbthread {workers}
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    {settings}
frontend proxy
    bind {listen}
    backlog 4096
    default_backend upstream
backend upstream
    server upstream {upstream}
"
    )
}
