//! `rstlab matrix` with real servers, as tests/peers/matrix.toml starts them.

#![cfg(feature = "peers")]

use std::path::Path;
use std::process::Command;

use rstlab_tests::binary;

/// The table of these entries, a few trials of two scenarios, the words of each line one blank apart.
fn table(only: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let list = directory.path().join("list.toml");
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let text = std::fs::read_to_string(peers.join("matrix.toml")).expect("the list is there");
    // The same entries with fewer trials, in another place.
    let text = text.replacen(
        "[[server]]",
        "[check]\ntrials = 4\nscenarios = [\"body-after-gap\", \"body-large\"]\n\n[[server]]",
        1,
    );
    let directory_of = format!("[[server]]\ndirectory = {:?}", peers.display().to_string());
    let text = text.replace("[[server]]", &directory_of);
    let proxies = text.find("[[proxy]]").expect("there are proxies");
    std::fs::write(&list, &text[..proxies]).expect("it can be written");
    let output = Command::new(binary("rstlab"))
        .arg("matrix")
        .arg(&list)
        .arg("--only")
        .args(only)
        .output()
        .expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    printed.lines().map(words).collect()
}

/// Whether a row has this version, verdict and end: what it reads on and the marks.
fn assert_row(table: &str, name: &str, begin: &str, end: &str) {
    let row = table.lines().find(|row| row.starts_with(name));
    let row = row.and_then(|row| row.strip_prefix(name));
    let sound = row.is_some_and(|row| row.contains(begin) && row.ends_with(end));
    assert!(sound, "{name}:{begin} ...{end} is missing in:\n{table}");
}

#[test]
fn nginx_passes_and_an_old_gunicorn_loses() {
    let old = "gunicorn 23 sync, ignores";
    let table = table(&["nginx", old]);
    assert_row(&table, old, " 23.0.0 loses ", " no LL");
    assert_row(&table, "nginx", " pass 0 of 20 ", " > 16 MiB, > 5.5 s ++");
}

#[test]
fn waitress_passes_and_uvicorn_and_node_lose() {
    let [waitress, uvicorn, node] = [
        "waitress, ignores",
        "uvicorn, ignores",
        "Node http, ignores",
    ];
    let table = table(&[waitress, uvicorn, node]);
    assert_row(&table, waitress, " 3.0.2 pass 0 of 20 ", " reads first ++");
    assert_row(&table, uvicorn, " 0.54.0 loses ", " no LL");
    assert_row(&table, node, " loses ", " no LL");
}
