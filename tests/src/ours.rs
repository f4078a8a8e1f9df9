//! Our programs as processes: finds them, starts them, and says where they listen.

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use crate::program::{ChildProgram, ProgramEnd, field};
use crate::soon;

/// One of our servers, listening.
#[derive(Debug)]
pub struct Server {
    program: ChildProgram,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Deref for Server {
    type Target = ChildProgram;

    fn deref(&self) -> &ChildProgram {
        &self.program
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut ChildProgram {
        &mut self.program
    }
}

impl Server {
    /// Starts a server that is told to listen on port 0, and waits until it says where it listens.
    ///
    /// # Panics
    /// It does not say so.
    pub fn start(command: Command) -> Self {
        let mut program = ChildProgram::start(command);
        let line = program.wait_for("listening");
        // The log has the text format or JSON.
        let in_json = || line.split("\"address\":\"").nth(1)?.split('"').next();
        let address = field(&line, "address").or_else(in_json);
        let address = address.and_then(|address| address.parse().ok());
        Self {
            program,
            address: address.unwrap_or_else(|| panic!("no address in {line:?}")),
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// It does not end within [`crate::LIMIT`].
    pub fn stop(self) -> ProgramEnd {
        self.program.stop()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// It does not come within [`crate::LIMIT`].
    pub fn wait(self) -> ProgramEnd {
        self.program.wait()
    }
}

/// Starts rstlab-upstream on a free port. Its evidence is its own sockets, unless the settings say otherwise.
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

/// The command that starts rstlab-proxy on a free port. Its evidence is its own sockets, unless the settings say
/// otherwise. If there is a `wrapper` (strace and its options), the wrapper runs the program.
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

/// `rstlab` with these arguments, and without the log settings of whoever runs the tests.
///
/// # Panics
/// The program is not there.
pub fn rstlab(args: &[&str]) -> Command {
    let mut command = Command::new(binary("rstlab"));
    command.args(args).env_remove("LOG");
    command
}

/// How `rstlab` with these arguments ends, and what it prints, while the peers of this test go on.
///
/// # Panics
/// The program is not there, or does not end within [`crate::LIMIT`].
pub async fn rstlab_output(args: &[&str]) -> Output {
    let run = tokio::process::Command::from(rstlab(args))
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    soon(run).await.expect("rstlab runs")
}

/// A copy of one of our programs that every user may run: the directory of the build may be closed to others.
///
/// A process of its own writes the copy. A program that is open for writing cannot be run (ETXTBSY), and a process that
/// another test starts meanwhile would inherit our descriptor of the copy.
///
/// # Panics
/// The copy cannot be made.
pub fn for_everybody(name: &str, directory: &Path) -> PathBuf {
    let copy = directory.join(name);
    let status = Command::new("cp").arg(binary(name)).arg(&copy).status();
    assert!(status.expect("cp is there").success(), "no copy of {name}");
    for path in [copy.as_path(), directory] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
    }
    copy
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

/// Tests are built in `target/<profile>/deps`, programs, as the soak is one, in the directory above.
fn beside_this_test() -> PathBuf {
    let mut path = env::current_exe().expect("a test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path
}
