use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::beside::{Beside, PROGRAM, listener, reset};

#[test]
fn a_signal_ends_it_well_and_removes_the_instance() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut watch = Beside::watch(&["--port", "1"]);
        let instance = watch.instance();
        assert!(Path::new(&instance).exists(), "{instance}");
        watch.signal(signal);
        let (status, summary) = watch.end();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(summary.contains("resets: 0, echoes: 0"), "{summary}");
        assert!(!Path::new(&instance).exists(), "{signal:?}");
    }
}

#[test]
fn the_next_start_removes_what_a_killed_run_left() {
    let mut watch = Beside::watch(&["--port", "1"]);
    let instance = watch.instance();
    watch.signal(Signal::KILL);
    watch.end();
    // Another test may have started one meanwhile: it is gone already then.
    let (status, _) = Beside::watch(&["--port", "1", "--duration", "10ms"]).end();
    assert!(status.success());
    assert!(!Path::new(&instance).exists());
}

#[test]
fn it_ends_when_nobody_reads_and_when_nobody_takes_what_it_writes() {
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
    assert!(!Path::new(&watch.instance()).exists());
}

#[test]
fn says_what_is_missing() {
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
    assert!(
        nobody.contains("is for root only: run this as root"),
        "{nobody}"
    );

    let script = "umount -a -t tracefs; umount -a -t debugfs; exec \"$0\" watch";
    let mut unmounted = Command::new("unshare");
    let unmounted = error(unmounted.args(["--mount", "sh", "-c", script, PROGRAM]));
    assert!(
        unmounted.contains("mount -t tracefs tracefs /sys/kernel/tracing"),
        "{unmounted}"
    );
}
