use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::beside::{Beside, PROGRAM, alone, instances, listener, reset};

#[test]
fn a_signal_ends_it_well_and_removes_the_instance() {
    let _alone = alone();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut watch = Beside::watch(&["--port", "1"]);
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
    let mut watch = Beside::watch(&["--port", "1"]);
    watch.signal(Signal::KILL);
    watch.end();
    // Another test may have started one meanwhile: it is gone already then.
    let (status, _) = Beside::watch(&["--port", "1", "--duration", "10ms"]).end();
    assert!(status.success());
    assert!(watch.instances().is_empty());
}

/// In each container it is the process 1, and so it was in one that was killed.
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
    // Until its child, which has the pipe too, has ended.
    one.end();
    let mut next = container();
    for container in [&mut other, &mut next] {
        container.signal(Signal::KILL);
        container.end();
    }
    for left in instances(1) {
        // One in use is another's.
        let _ = std::fs::remove_dir(left);
    }
}

#[test]
fn it_ends_when_nobody_reads_and_when_nobody_takes_what_it_writes() {
    let _alone = alone();
    let (listener, address) = listener();
    let port = address.port().to_string();
    let mut watch = Beside::watch(&["--port", &port]);
    drop(watch.child.stdout.take());
    reset(&listener);
    assert!(watch.end().0.success());

    // More than a pipe holds, and nobody takes it.
    let mut watch = Beside::watch(&["--port", &port]);
    for _ in 0..1000 {
        reset(&listener);
    }
    watch.signal(Signal::TERM);
    assert!(watch.end().0.success());
    assert!(watch.instances().is_empty());
}

#[test]
fn says_what_is_missing_and_does_what_it_can() {
    let _alone = alone();
    let error = |command: &mut Command| {
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    // The directory of the build may be closed to others: the program is opened before root is given up.
    let program = std::fs::read(PROGRAM).expect("the program");
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("rstlab");
    std::fs::write(&copy, program).expect("writes");
    for path in [copy.as_path(), directory.path()] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("sets");
    }
    let nobody = error(Command::new(&copy).arg("watch").uid(65534).gid(65534));
    for missing in [
        "no reset can be seen",
        "is for root only: run this as root",
        "CAP_NET_RAW",
    ] {
        assert!(nobody.contains(missing), "{nobody}");
    }
    let mut wanted = Command::new(&copy);
    let wanted = error(
        wanted
            .args(["watch", "--witness", "packets"])
            .uid(65534)
            .gid(65534),
    );
    assert!(
        wanted.contains("--witness=packets does not work here") && wanted.contains("CAP_NET_RAW"),
        "{wanted}"
    );

    let script = "umount -a -t tracefs; umount -a -t debugfs; exec \"$0\" watch --witness kernel";
    let mut unmounted = Command::new("unshare");
    let unmounted = error(unmounted.args(["--mount", "sh", "-c", script, PROGRAM]));
    assert!(
        unmounted.contains("mount -t tracefs tracefs /sys/kernel/tracing"),
        "{unmounted}"
    );

    // With nothing but the right to capture, it does that, and says what it means.
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
    for part in [
        "by packets; the kernel cannot be asked: ",
        "this network namespace only",
        "is inferred",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let client = reset(&listener);
    let out = watch.output();
    let to = client.local_addr().expect("an address");
    let head = format!("first {address} -> {to} [R.] = unread-at-close, inferred\n");
    assert!(out.contains(&head), "{out}");
    assert!(watch.end().0.success());
}
