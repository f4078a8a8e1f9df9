//! The end of `rstlab watch`, and its errors if it cannot begin.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rstlab_tests::{InTime as _, assert_contains, for_everybody, instances_of};
use rustix::process::Signal;

use crate::beside::{Beside, PROGRAM, alone, listener, reset};

#[test]
fn a_signal_ends_watch_well_and_removes_the_instance() {
    let _alone = alone();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut watch = Beside::watch("--port 1");
        assert_eq!(watch.instances().len(), 1);
        watch.signal(signal);
        let (status, summary) = watch.end();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(summary.contains("resets: 0, echoes: 0"), "{summary}");
        assert!(watch.instances().is_empty(), "{signal:?}");
    }
}

#[test]
fn the_next_start_removes_what_a_killed_run_left() {
    let _alone = alone();
    let mut watch = Beside::watch("--port 1");
    watch.signal(Signal::KILL);
    watch.end();
    // If another test has started a watch meanwhile, the instance is gone already.
    let (status, _) = Beside::watch("--port 1 --duration 10ms").end();
    assert!(status.success());
    assert!(watch.instances().is_empty());
}

/// In each container watch is process 1, also in a container that was killed.
#[test]
fn each_container_has_an_instance_of_its_own() {
    let _alone = alone();
    let container = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", PROGRAM]);
        command.args(["watch", "--witness", "kernel", "--port", "1"]);
        Beside::start(command.stdout(Stdio::null()), "watching")
    };
    let [mut one, mut other] = [container(), container()];
    one.signal(Signal::KILL);
    // The end of the log comes when the child, which holds the pipe too, has ended.
    one.end();
    let mut next = container();
    for container in [&mut other, &mut next] {
        container.signal(Signal::KILL);
        container.end();
    }
    for left in instances_of(1) {
        // An instance that is in use belongs to another process, and stays.
        let _ = std::fs::remove_dir(left);
    }
}

#[test]
fn watch_ends_when_its_output_is_closed_and_when_nobody_reads_it() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&format!("--port {port}"));
    drop(watch.program.take_stdout());
    reset(&listener);
    assert!(watch.end().0.success());

    // These resets print more than a pipe holds, and nobody reads it.
    let mut watch = Beside::watch(&format!("--port {port}"));
    for _ in 0..1000 {
        reset(&listener);
    }
    watch.signal(Signal::TERM);
    assert!(watch.end().0.success());
    assert!(watch.instances().is_empty());
}

#[test]
fn watch_says_which_privilege_is_missing_and_does_what_it_can() {
    let _alone = alone();
    let error = |command: &mut Command| {
        let output = command.output_in_time();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let directory = tempfile::tempdir().expect("a directory");
    let copy = for_everybody("rstlab", directory.path());
    let nobody = error(Command::new(&copy).arg("watch").uid(65534).gid(65534));
    let root = "is for root only: run this as root";
    assert_contains(&nobody, &["no reset can be seen", root, "CAP_NET_RAW"]);
    let mut wanted = Command::new(&copy);
    let wanted = error(
        wanted
            .args(["watch", "--witness", "packets"])
            .uid(65534)
            .gid(65534),
    );
    let parts = ["--witness=packets does not work here", "CAP_NET_RAW"];
    assert_contains(&wanted, &parts);

    let script = "umount -a -t tracefs; umount -a -t debugfs; exec \"$0\" watch --witness kernel";
    let mut unmounted = Command::new("unshare");
    let unmounted = error(unmounted.args(["--mount", "sh", "-c", script, PROGRAM]));
    assert_contains(
        &unmounted,
        &["mount -t tracefs tracefs /sys/kernel/tracing"],
    );

    // With the right to capture and no other, watch captures, and says what captures cannot tell.
    let (listener, address) = listener();
    let mut only_raw = Command::new("setpriv");
    only_raw
        .args([
            "--reuid=65534",
            "--clear-groups",
            "--inh-caps=-all,+net_raw",
        ])
        .args([
            "--ambient-caps=-all,+net_raw",
            "--bounding-set=-all,+net_raw",
        ])
        .arg(&copy)
        .args([
            "watch",
            "--count",
            "1",
            "--port",
            &address.port().to_string(),
        ])
        .stdout(Stdio::piped());
    let mut watch = Beside::start(&mut only_raw, "watching");
    let said = watch.said.replace("\n                 ", " ");
    let by_packets = "by packets; the kernel cannot be asked: ";
    let parts = [by_packets, "this network namespace only", "is inferred"];
    assert_contains(&said, &parts);
    let client = reset(&listener);
    let out = watch.output();
    let to = client.local_addr().expect("an address");
    let head = format!("first {address} -> {to} [R.] = unread-at-close, inferred\n");
    assert!(out.contains(&head), "{out}");
    assert!(watch.end().0.success());
}
