use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use crate::program::{Ended, Program, field};

/// One of our servers, listening.
#[derive(Debug)]
pub struct Server {
    program: Program,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Deref for Server {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Server {
    /// Starts a server that is told to listen on port 0, and waits until it says where it listens.
    ///
    /// # Panics
    /// It does not say so.
    pub fn start(command: Command) -> Self {
        let mut program = Program::start(command);
        let line = program.wait_for("listening address=");
        let address = field(&line, "address").and_then(|address| address.parse().ok());
        Self {
            program,
            address: address.unwrap_or_else(|| panic!("no address in {line:?}")),
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// It does not end within [`crate::LIMIT`].
    pub fn stop(self) -> Ended {
        self.program.stop()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not come within [`crate::LIMIT`].
    pub fn wait(self) -> Ended {
        self.program.wait()
    }
}

/// Starts rstlab-upstream on a free port; it asks only its own sockets, unless the settings say more.
///
/// # Panics
/// It does not start.
pub fn upstream(settings: &[(&str, &str)]) -> Server {
    let mut command = Command::new(binary("rstlab-upstream"));
    command
        .env_clear()
        .env("UPSTREAM_LISTEN", "127.0.0.1:0")
        .env("UPSTREAM_WITNESS", "sockets")
        .envs(settings.iter().copied());
    Server::start(command)
}

/// Starts rstlab-proxy on a free port, in front of `upstream`.
///
/// # Panics
/// It does not start.
pub fn proxy(upstream: SocketAddr, settings: &[(&str, &str)]) -> Server {
    Server::start(proxy_command(&[], upstream, settings))
}

/// The command that starts rstlab-proxy on a free port; it asks only its own sockets, unless the settings say
/// more. It is run by `wrapper` if there is one (strace and its options).
pub fn proxy_command(wrapper: &[&str], upstream: SocketAddr, settings: &[(&str, &str)]) -> Command {
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.push(binary("rstlab-proxy").into());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .env("PROXY_LISTEN", "127.0.0.1:0")
        .env("PROXY_WITNESS", "sockets")
        .env("PROXY_UPSTREAM", upstream.to_string())
        .envs(settings.iter().copied());
    command
}

/// The path of one of our programs: in `RSTLAB_BIN_DIR`, or where cargo built it for this test.
///
/// # Panics
/// It is not there.
pub fn binary(name: &str) -> PathBuf {
    let directory = env::var_os("RSTLAB_BIN_DIR").map_or_else(beside_this_test, PathBuf::from);
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is missing: run cargo build --workspace first",
        path.display()
    );
    path
}

/// Tests are built in `target/<profile>/deps`, programs one floor up.
fn beside_this_test() -> PathBuf {
    let mut path = env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path
}
