//! `rstlab matrix` with real servers, as tests/peers/matrix.toml starts them.

#![cfg(feature = "peers")]

use std::path::Path;

use rstlab_tests::{InTime as _, rstlab, text, words};

/// The table of these entries with a few trials of two scenarios; in each line the words are one blank apart.
fn table(only: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let list = directory.path().join("list.toml");
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let entries = std::fs::read_to_string(peers.join("matrix.toml")).expect("the list is there");
    // The copy of the list has fewer trials, and is in another directory.
    let entries = entries.replacen(
        "[[server]]",
        "[check]\ntrials = 4\nscenarios = [\"body-after-gap\", \"body-large\"]\n\n[[server]]",
        1,
    );
    let directory_of = format!("[[server]]\ndirectory = {:?}", peers.display().to_string());
    let entries = entries.replace("[[server]]", &directory_of);
    let proxies = entries.find("[[proxy]]").expect("there are proxies");
    std::fs::write(&list, &entries[..proxies]).expect("it can be written");
    let output = rstlab(&["matrix", "--only"])
        .args(only)
        .arg("--")
        .arg(&list)
        .output_in_time();
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    printed.lines().map(|line| words(line) + "\n").collect()
}

/// Checks that the row of a name begins with this version and verdict, and ends with these drain bounds and marks.
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
    assert_row(&table, "nginx", " pass 0 of 60 ", " > 16 MiB, > 5.5 s ++");
}

#[test]
fn waitress_passes_and_uvicorn_and_node_lose() {
    let [waitress, uvicorn, node] = [
        "waitress, ignores",
        "uvicorn, ignores",
        "Node http, ignores",
    ];
    let table = table(&[waitress, uvicorn, node]);
    assert_row(&table, waitress, " 3.0.2 pass 0 of 60 ", " reads first ++");
    assert_row(&table, uvicorn, " 0.54.0 loses ", " no LL");
    assert_row(&table, node, " loses ", " no LL");
}
