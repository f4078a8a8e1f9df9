//! `rstlab matrix` with our own servers, with programs that are no servers, and interrupted.

// Helpers of tests, outside of #[test].
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rstlab_tests::{
    InTime as _, LIMIT, assert_contains, check_schema, processes_of, rstlab, text, words,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A list in a directory of its own. The name of the directory stands in the command line of each program that the list
/// starts.
struct List {
    directory: TempDir,
}

impl List {
    fn new(text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let text = text.replace("MARK", directory.path().to_str().unwrap());
        fs::write(directory.path().join("list.toml"), text).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = rstlab(&["matrix"]);
        command.arg(self.path("list.toml")).args(more);
        command.current_dir(self.directory.path());
        // The programs that it starts inherit this variable, by which the test finds them.
        command.env("LIST_OF_TEST", self.directory.path());
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output_in_time()
    }

    /// Starts the matrix, and waits for the file `started`, which a program of the list writes.
    fn start(&self) -> Child {
        let mut command = self.command(&[]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + LIMIT;
        while !is_written(&self.path("started")) {
            assert!(Instant::now() < deadline, "it was not started");
            sleep(Duration::from_millis(5));
        }
        child
    }

    /// Interrupts the matrix, and checks that no program of the list is left.
    fn interrupt(&self, child: Child) {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.output_in_time();
        assert_eq!(output.status.code(), Some(1));
        let said = "interrupted: no table was made, and nothing is left running";
        assert_contains(text(&output.stderr), &[said]);
        assert_eq!(self.running(), None);
    }

    /// A process of the list, as its directory in /proc.
    fn running(&self) -> Option<PathBuf> {
        let mark = self.directory.path().to_str().unwrap();
        processes_of(mark).into_iter().next()
    }
}

/// The entry of rstlab-upstream in some mode.
fn upstream(mode: &str) -> String {
    format!(
        r#"
        [[server]]
        name = "{mode}"
        command = ["{{bin}}/rstlab-upstream"]
        environment = {{UPSTREAM_LISTEN = "127.0.0.1:{{port}}", UPSTREAM_MODE = "{mode}", PLACE = "MARK"}}
        version = ["{{bin}}/rstlab-upstream", "--version"]
        "#
    )
}

const QUICK: &str =
    "[check]\ntrials = 4\nscenarios = [\"body-after-gap\", \"keep-alive\"]\nclients = 5\n";

#[test]
fn matrix_prints_a_table_of_two_servers_and_a_proxy_and_writes_three_files() {
    let proxy = r#"
        [[proxy]]
        name = "ours"
        command = ["{bin}/rstlab-proxy"]
        environment = {PROXY_LISTEN = "127.0.0.1:{port}", PROXY_UPSTREAM = "{upstream}", PROXY_MAX_BODY = "0"}
        "#;
    let list = List::new(&[QUICK, &upstream("drain"), &upstream("lazy"), proxy].concat());
    let files = ["--json", "a.json", "--markdown", "b.md", "--html", "c.html"];
    let output = list.run(&files);
    let printed = text(&output.stdout);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert_contains(
        &words(printed),
        &[
            "drain 0.1.0 pass 0 of 48 reads first ++",
            "lazy 0.1.0 loses",
            " of 48 no LL",
            "1 body-after-gap, 2 keep-alive.",
            "ours ? 5 of 5 5 of 5 5 of 5 5 of 5",
        ],
    );
    for line in printed.lines() {
        assert!(line.chars().count() <= 100, "too wide:\n{line}");
    }

    let read = |name: &str| fs::read_to_string(list.path(name)).unwrap();
    let json: Value = serde_json::from_str(&read("a.json")).unwrap();
    check_schema("matrix", &json).unwrap();
    for (row, verdict) in [(0, "pass"), (1, "loses")] {
        let report = &json["servers"][row]["check"];
        check_schema("check", report).unwrap();
        assert_eq!(report["verdict"], verdict);
    }
    check_schema("through", &json["proxies"][0]["through"]).unwrap();
    assert_contains(
        &read("b.md"),
        &[
            "| drain | 0.1.0 | pass | 0 of 48 | reads first | + | + |",
            "| ours | ? | 5 of 5 |",
        ],
    );
    assert_contains(
        &read("c.html"),
        &[
            "<td>drain</td><td>0.1.0</td><td>pass</td>",
            "<td class=\"mark loses\"",
            "<td>ours</td>",
        ],
    );
    assert_eq!(list.running(), None);
}

#[test]
fn a_server_that_cannot_be_checked_says_why_and_the_others_go_on() {
    let entry = |name: &str, command: &str| {
        format!(
            "[[server]]\nname = \"{name}\"\ncommand = [{command}, \"{{port}}\", \"MARK\"]\nready_within = \"3s\"\nenvironment = {{PLACE = \"MARK\"}}\n"
        )
    };
    let list = List::new(
        &[
            QUICK,
            &entry(
                "never ready",
                r#""sh", "-c", "echo waiting for a disk; sleep 600 & wait""#,
            ),
            &entry("dies", r#""sh", "-c", "echo no licence >&2; exit 3""#),
            &entry("is not there", r#""./nothing""#),
            &upstream("drain"),
        ]
        .concat(),
    );
    let output = list.run(&["--json", "a.json"]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_contains(
        &words(printed),
        &[
            "never ready ? not checked",
            "drain 0.1.0 pass",
            // Then the reason of the last try: a machine that stalls has no answer in time.
            "never ready: not ready within 3s (",
            "; it wrote: waiting for a disk",
            "dies: it ended (exit status: 3) before it was ready; it wrote: no licence",
            "is not there: cannot start ./nothing: No such file or directory",
        ],
    );
    assert_eq!(list.running(), None);

    let output = list.run(&["--only", "drain"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("dies"));
}

#[test]
fn a_server_that_dies_while_it_is_checked_has_no_verdict() {
    let script = "\
import os, socket, sys
s = socket.create_server(('127.0.0.1', int(sys.argv[1])))
for n in range(5):
    c = s.accept()[0]
    c.recv(4096)
    c.sendall(b'HTTP/1.1 200 OK\\\\r\\\\nContent-Length: 2\\\\r\\\\nConnection: close\\\\r\\\\n\\\\r\\\\nok')
    c.close()
os.abort()
";
    let list = List::new(&format!(
        "{QUICK}[[server]]\nname = \"short\"\ncommand = [\"python3\", \"-c\", \"\"\"{script}\"\"\", \"{{port}}\", \"MARK\"]\n"
    ));
    let output = list.run(&[]);
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_contains(&printed, &["short: it ended (signal: 6 (SIGABRT)"]);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    // This program ignores SIGTERM, and has a child.
    let script = "trap '' TERM INT; sleep 600 & echo $$ > MARK/started; wait; wait";
    let list = List::new(&format!(
        "[[server]]\nname = \"stubborn\"\ncommand = [\"sh\", \"-c\", \"{script}\", \"{{port}}\"]\nready_within = \"5min\"\nenvironment = {{PLACE = \"MARK\"}}\n"
    ));
    let child = list.start();
    list.interrupt(child);
}

#[test]
fn an_interrupt_ends_the_command_that_prints_a_version_too() {
    let list = List::new(
        r#"
        [[server]]
        name = "slow to tell"
        command = ["true", "{port}"]
        version = ["sh", "-c", "echo > MARK/started; sleep 600; echo 1.2"]
        "#,
    );
    let child = list.start();
    list.interrupt(child);
}

#[test]
fn a_server_that_goes_on_in_the_background_is_named_and_ended() {
    let list = List::new(&format!(
        r#"{QUICK}
        [[server]]
        name = "daemon"
        command = ["sh", "-c", "setsid sleep 600 > MARK/null 2>&1 & exit 0", "{{port}}"]
        "#
    ));
    let output = list.run(&[]);
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert_contains(
        &printed,
        &[
            "daemon: it ended (exit status: 0) before it was ready and left s",
            " in the background: run it in the foreground",
        ],
    );
    // The daemon is in no process group of the matrix.
    assert_eq!(list.running(), None);
}

fn is_written(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.len() > 0)
}

/// An entry at a fixed place that writes the file `started` and never listens.
fn never_listens(place: &str) -> String {
    let script = "echo > MARK/started; sleep 600";
    format!(
        "{QUICK}[[server]]\nname = \"mine\"\n{place}\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"
    )
}

#[test]
fn a_server_that_listens_already_is_not_taken_for_the_entry() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let list = List::new(&never_listens(&format!("port = {port}")));
    let unix = List::new(&never_listens("unix = \"MARK/socket\""));
    let _socket = UnixListener::bind(unix.path("socket")).unwrap();
    for (list, place) in [(list, format!("port {port}")), (unix, "/socket".to_owned())] {
        let output = list.run(&[]);
        let printed = words(text(&output.stdout));
        assert_eq!(output.status.code(), Some(1), "{printed}");
        let us = std::process::id();
        assert_contains(
            &printed,
            &[
                "mine: ",
                &format!("{place} is in use already: "),
                &format!(" ({us}) listens there"),
            ],
        );
        assert!(!list.path("started").exists(), "it was started");
    }
}

#[test]
fn a_server_that_takes_the_port_while_the_entry_starts_is_not_taken_for_the_entry() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    until_this_process_is_older();
    let list = List::new(&never_listens(&format!("port = {}", address.port())));
    let child = list.start();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let output = child.output_in_time();
    let printed = words(text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let port = address.port();
    assert_contains(
        &printed,
        &[
            &format!("mine: it is not what listens on port {port}: "),
            &format!(" ({}) does, and ran before it", std::process::id()),
        ],
    );
    assert_eq!(list.running(), None);
}

/// Waits until a program that is started now has a later start time in /proc than this process. The start time is counted
/// in clock ticks, 100 a second.
fn until_this_process_is_older() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let started: u64 = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split(' ')
        .nth(20)
        .unwrap()
        .parse()
        .unwrap();
    let now = || {
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        (seconds * 100.0) as u64
    };
    while now() <= started + 1 {
        sleep(Duration::from_millis(5));
    }
}

/// A list without mistakes, apart from the lines added to its server `two`.
fn with_added(lines: &str) -> String {
    format!("[[server]]\nname = \"two\"\ncommand = [\"nginx\", \"{{port}}\"]\n{lines}\n")
}

#[test]
fn the_first_mistake_of_a_list_is_told_with_its_line() {
    let server = with_added("");
    for (list, line, problem) in [
        (
            "[check]\ntrials = 0".to_owned(),
            2,
            "0; allowed: 1 to 10000",
        ),
        (
            "[check]\nscenarios = [\"nothing\"]".to_owned(),
            2,
            "no scenario is called \"nothing\"; there are body-with-head, ",
        ),
        (
            "[[server]]\ncommand = [\"a\"]".to_owned(),
            1,
            "missing field `name`",
        ),
        (with_added("nmae = \"one\""), 4, "unknown field `nmae`"),
        (
            "[[server]]\nname = \"one\"\ncommand = \"nginx\"".to_owned(),
            3,
            "invalid type: string \"nginx\", expected a sequence",
        ),
        (
            server.replace("{port}", "{prot}"),
            1,
            "server \"two\": no placeholder {prot}; there are {bin}, {tmp}, {port}",
        ),
        (
            server.replace("{port}", "port"),
            1,
            "server \"two\": nothing says {port}",
        ),
        (
            with_added("path = \"no slash\""),
            1,
            "server \"two\": `path` is \"no slash\"; allowed: a path",
        ),
        (
            with_added("ready = \"soon\""),
            1,
            "server \"two\": `ready` is \"soon\"; allowed: \"connect\", or a path",
        ),
        (
            with_added("ready_within = \"soon\""),
            4,
            "\"soon\"; allowed: a time",
        ),
        (
            with_added("files = [\"missing.conf\"]"),
            1,
            "server \"two\": cannot read ",
        ),
        (
            with_added(&server),
            4,
            "server \"two\": another one has this name",
        ),
        (
            with_added("port = 70000"),
            4,
            "invalid value: integer `70000`",
        ),
        (
            server.replace("server", "proxy"),
            1,
            "proxy \"two\": nothing says {upstream}",
        ),
        (with_added("[servers]"), 4, "unknown field `servers`"),
        (String::new(), 1, "there is no [[server]] and no [[proxy]]"),
        ("[[server]]\nname = \"x\ncommand = []".to_owned(), 2, ""),
    ] {
        let output = List::new(&list).run(&[]);
        assert_eq!(output.status.code(), Some(2), "{list}");
        let stderr = text(&output.stderr);
        assert!(stderr.lines().all(|line| line.len() <= 100), "{stderr}");
        let told = format!("list.toml has a mistake line {line}: {problem}");
        assert_contains(&words(stderr), &[&told]);
    }
}

#[test]
fn a_name_that_is_not_there_and_a_file_that_cannot_be_written_are_told() {
    let list = List::new(&upstream("drain"));
    let output = list.run(&["--only", "lazy"]);
    assert_eq!(output.status.code(), Some(2));
    assert_contains(
        text(&output.stderr),
        &["--only \"lazy\": no name contains it; there are: drain"],
    );
    let output = list.run(&["--json", "no/such/directory"]);
    assert_eq!(output.status.code(), Some(2));
    assert_contains(text(&output.stderr), &["cannot write no/such/directory"]);
}
