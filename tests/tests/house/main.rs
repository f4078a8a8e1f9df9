//! The rules of the workspace that no compiler checks: names, first lines, imports, links between pages.

mod imports;
mod pages;
mod source;

use std::collections::BTreeMap;

use imports::Imports;
use source::{rust_files, sources};

/// Fails with what is wrong, all of it, and what to do about it.
fn assert_none(wrong: &[String], advice: &str) {
    let count = wrong.len();
    assert!(
        wrong.is_empty(),
        "{count} times; {advice}:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn each_type_name_is_declared_once() {
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for (number, line) in file.lines() {
            if let Some(name) = source::declared_type(line) {
                let place = format!("{}:{number}", file.path);
                declared.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    let twice = declared.iter().filter(|(_, places)| places.len() > 1);
    let wrong: Vec<String> = twice
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert_none(&wrong, "give each type a name that says which one it is");
}

#[test]
fn each_file_says_first_what_it_is_for() {
    let files = sources().into_iter();
    let silent = files.filter(|file| !file.text.starts_with("//! "));
    let wrong: Vec<String> = silent.map(|file| file.path).collect();
    assert_none(
        &wrong,
        "begin the file with one //! sentence that says what it is for",
    );
}

#[test]
fn modules_do_not_import_each_other_in_circles() {
    let mut wrong = Vec::new();
    for (crate_name, room) in [("witness", ""), ("lab", "judges")] {
        let circles = Imports::of(crate_name).circles(room).into_iter();
        wrong.extend(circles.map(|line| format!("{crate_name}: {line}")));
    }
    assert_none(
        &wrong,
        "move what two modules need below both, and import it from there",
    );
}

#[test]
fn evidence_is_at_the_bottom() {
    let imports = Imports::of("witness");
    let rooms = ["kernel", "packets", "verdict", "records", "ended"];
    let leaves = imports.leaves(&rooms);
    let mut wrong = Vec::new();
    for (from, to) in imports.edges() {
        let is_in = |module: &str, room: &str| module.split("::").next() == Some(room);
        let allowed = match rooms.iter().find(|room| is_in(from, room)) {
            Some(&room @ ("kernel" | "packets")) => {
                is_in(to, room) || is_in(to, "evidence") || leaves.contains(to)
            }
            Some(&"verdict") => is_in(to, "verdict") || is_in(to, "evidence"),
            _ if is_in(from, "evidence") => is_in(to, "evidence") || leaves.contains(to),
            _ => true,
        };
        if !allowed {
            let to = if to.is_empty() { "the crate's top" } else { to };
            wrong.push(format!("{from} imports {to}"));
        }
    }
    assert_none(
        &wrong,
        "in crates/witness/src kernel/ and packets/ import evidence/ and leaves only, verdict/ evidence/ only, and \
         evidence/ leaves only",
    );
}

#[test]
fn the_witness_imports_by_path_and_not_through_its_top() {
    assert_none(
        &Imports::of("witness").through_the_top,
        "import from the module that declares it, as in crate::evidence::Reason",
    );
}

#[test]
fn the_rooms_of_the_lab_do_not_import_each_other() {
    let imports = Imports::of("lab");
    let rooms = ["makes", "judges", "watches"];
    let room = |module: &str| {
        let first = module.split("::").next();
        rooms.iter().find(|room| first == Some(**room)).copied()
    };
    let wrong: Vec<String> = imports
        .edges()
        .filter(|(from, to)| room(from).is_some() && room(to).is_some() && room(from) != room(to))
        .map(|(from, to)| format!("{from} imports {to}"))
        .collect();
    assert_none(&wrong, "move what two rooms need to crates/lab/src/shared");
}

#[test]
fn every_page_is_reachable_and_every_link_leads_somewhere() {
    let (dead, lost) = pages::check();
    assert_none(&dead, "correct these links");
    assert_none(
        &lost,
        "link these pages from README.md or from a page that it links to",
    );
}

#[test]
fn the_rules_find_the_source_files_and_their_imports() {
    assert!(rust_files("crates").len() > 100);
    assert!(Imports::of("witness").edges().count() > 50);
    assert!(Imports::of("lab").edges().count() > 50);
}
