//! A real nginx in front of rstlab-upstream logs the reset of the article, and `rstlab check` recognizes an nginx that
//! speaks TLS.

#![cfg(feature = "peers")]
// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rstlab_tests::{
    ChildProgram, InTime as _, ProgramEnd, Reply, assert_contains, connect, field, post_head,
    read_reply, rstlab, text, upstream,
};
use rustix::io::dup;
use tempfile::TempDir;

const REQUESTS: usize = 100;
const BODY: &[u8; 22] = b"0123456789012345678901";
const RESPONSE_BYTES: u64 = 614_400;
const GAP: Duration = Duration::from_millis(5);

/// nginx in the foreground, with every path in a directory of its own.
struct Nginx {
    program: ChildProgram,
    directory: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// nginx in front of an upstream. Its buffers towards the client are small, so a client that does not read soon keeps
    /// nginx from reading on.
    fn before(upstream: SocketAddr) -> Self {
        let directory = TempDir::new().unwrap();
        let location = format!(
            "location / {{
                proxy_pass http://{upstream};
                proxy_http_version 1.1;
                proxy_request_buffering off;
                proxy_max_temp_file_size 0;
            }}"
        );
        Self::start(directory, "sndbuf=16k", &location)
    }

    /// nginx with TLS on its port, and a new certificate.
    fn with_tls() -> Self {
        let directory = TempDir::new().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes"])
            .args(["-subj", "/CN=localhost", "-keyout", "key", "-out", "cert"])
            .current_dir(&directory)
            .output_in_time();
        assert!(made.status.success(), "{made:?}");
        let path = directory.path().display();
        let keys = format!(
            "ssl_certificate {path}/cert;
            ssl_certificate_key {path}/key;"
        );
        Self::start(directory, "ssl", &keys)
    }

    /// Starts nginx. `listen` stands behind the address in the directive `listen`, and `server` in the block `server`.
    fn start(directory: TempDir, listen: &str, server: &str) -> Self {
        // nginx can't say which free port it took, so it inherits a socket that listens already, as it does
        // from its predecessor when it is upgraded (the variable NGINX).
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inherited = dup(&listener).unwrap();

        let path = directory.path().to_str().unwrap();
        let config = format!(
            "daemon off;
            worker_processes 1;
            pid {path}/pid;
            error_log {path}/error.log warn;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path {path}/body;
                proxy_temp_path {path}/proxy;
                fastcgi_temp_path {path}/fastcgi;
                uwsgi_temp_path {path}/uwsgi;
                scgi_temp_path {path}/scgi;
                server {{
                    listen {address} {listen};
                    {server}
                }}
            }}"
        );
        let config_file = directory.path().join("nginx.conf");
        fs::write(&config_file, config).unwrap();
        let mut command = Command::new("nginx");
        command
            .args(["-e", "stderr", "-p", path, "-c"])
            .arg(config_file)
            .env("NGINX", format!("{};", inherited.as_raw_fd()));
        Self {
            program: ChildProgram::start(command),
            directory,
            address,
        }
    }

    /// Ends nginx; returns its error log.
    fn stop(self) -> String {
        let ProgramEnd { status, log } = self.program.stop();
        assert_eq!(status.code(), Some(0), "{log:?}");
        fs::read_to_string(self.directory.path().join("error.log")).unwrap()
    }
}

/// Sends head and body [`GAP`] apart, and reads afterwards.
///
/// An upstream that does not wait for the body has answered and closed by then. nginx has no room for the whole
/// response, and cannot send it on.
fn body_after_a_gap(nginx: SocketAddr) -> io::Result<Reply> {
    let mut client = connect(nginx)?;
    client.write_all(post_head("/", BODY.len() as u64).as_bytes())?;
    sleep(GAP);
    client.write_all(BODY)?;
    Ok(read_reply(&mut client))
}

/// How many lines of nginx's error log report a reset of the upstream.
fn resets(log: &str) -> usize {
    let reset =
        |line: &&str| line.contains("104: Connection reset by peer") && line.contains("upstream");
    log.lines().filter(reset).count()
}

#[test]
fn lazy_makes_nginx_log_its_104() {
    let upstream = upstream(&[("UPSTREAM_MODE", "lazy")]);
    let nginx = Nginx::before(upstream.address);
    let mut cut = 0;
    for _ in 0..REQUESTS {
        let reply = body_after_a_gap(nginx.address).unwrap();
        assert_eq!(reply.status, Some(200));
        assert_eq!(reply.expected_bytes, Some(RESPONSE_BYTES));
        cut += usize::from(!reply.is_whole());
    }
    let log = nginx.stop();
    let resets = resets(&log);
    eprintln!("{REQUESTS} requests: nginx logged {resets} resets, {cut} responses were cut");
    assert!(resets > 0, "{log}");
    assert!(cut > 0, "{log}");
    assert_eq!(upstream.stop().status.code(), Some(0));
}

#[test]
fn drain_makes_nginx_log_no_reset() {
    let upstream = upstream(&[("UPSTREAM_MODE", "drain")]);
    let nginx = Nginx::before(upstream.address);
    for _ in 0..REQUESTS {
        let reply = body_after_a_gap(nginx.address).unwrap();
        assert!(reply.is_whole() && reply.status == Some(200), "{reply:?}");
    }
    let log = nginx.stop();
    assert_eq!(resets(&log), 0, "{log}");
    let ended = upstream.stop();
    let whole = |line: &&String| field(line, "body_bytes") == Some("22");
    assert_eq!(ended.log.iter().filter(whole).count(), REQUESTS);
}

#[test]
fn check_says_that_nginx_speaks_tls() {
    let nginx = Nginx::with_tls();
    let output = rstlab(&["check", &format!("http://{}/", nginx.address)]).output_in_time();
    assert_contains(text(&output.stderr), &["TLS: the port speaks https"]);
    assert_eq!(output.status.code(), Some(2));
    nginx.stop();
}
