//! `rstlab load` as a program: its output and its exit codes.

#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};

use rstlab_tests::{Peer, PeerEnd, assert_contains, check_schema, cut, read_request, soon, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rstlab"))
        .arg("load")
        .args(args)
        .env_remove("LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn load(args: &[&str]) -> Output {
    soon(start(args).wait_with_output()).await.unwrap()
}

#[tokio::test]
async fn load_prints_one_json_object_as_the_schema_says() {
    for (bytes, end, code) in [
        (cut(5, 5), PeerEnd::Close, 0),
        (cut(1000, 400), PeerEnd::Reset, 1),
        (b"junk\r\n\r\n".to_vec(), PeerEnd::Close, 1),
    ] {
        let peer = Peer::answering(bytes, end).await;
        let url = format!("http://{}/", peer.address);
        let output = load(&[&url, "--requests=5", "--json"]).await;
        assert_eq!(output.status.code(), Some(code));
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_schema("load", &report).unwrap();
        assert_eq!(report["requests"], 5);
        peer.finish().await;
    }
}

#[tokio::test]
async fn the_text_of_load_names_the_reset_its_errno_and_the_loss() {
    let peer = Peer::answering(cut(1000, 400), PeerEnd::Reset).await;
    let url = format!("http://{}/", peer.address);
    let output = load(&[&url, "--requests=5", "--body=22", "--split", "--gap=1ms"]).await;
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert_contains(
        stdout,
        &[
            "truncated                5  by reset 5, EOF 0\n",
            "resets seen              5  0 of them harmless\n",
            "bytes lost           3,000  announced, and did not come\n",
            "5 truncated    reading-body   recv(): 104 Connection reset by peer\n",
        ],
    );
    assert!(stdout.lines().all(|line| line.chars().count() <= 80));
    peer.finish().await;
}

#[tokio::test]
async fn bad_settings_of_load_are_all_named() {
    let output = load(&["https://x", "--requests=0", "--body=many", "--log=a=b=c"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let parts = ["4 bad settings", "URL=", "--requests=", "--body=", "LOG="];
    assert_contains(text(&output.stderr), &parts);
}

#[tokio::test]
async fn an_interrupted_load_prints_its_report() {
    let (second_came, mut second) = tokio::sync::mpsc::channel(1);
    let peer = Peer::start(move |mut stream, _| {
        let second_came = second_came.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(&cut(5, 5)).await.unwrap();
            read_request(&mut stream).await.unwrap();
            second_came.send(()).await.unwrap();
            // The second request gets no answer, and this read ends when the client leaves.
            read_request(&mut stream).await;
        }
    })
    .await;
    let url = format!("http://{}/", peer.address);
    let run = start(&[&url, "--connections=1", "--json"]);
    soon(second.recv()).await.unwrap();
    let pid = i32::try_from(run.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
    let output = soon(run.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["whole"], &report["interrupted"]),
        (&1.into(), &true.into())
    );
    peer.finish().await;
}
