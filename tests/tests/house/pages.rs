//! The links between README.md and the pages of docs/.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::source::root;

/// Links that lead nowhere, and pages that no way leads to from README.md.
pub(crate) fn check() -> (Vec<String>, Vec<String>) {
    let mut pages = vec!["README.md".to_owned()];
    let docs = fs::read_dir(root().join("docs")).expect("README.md has its pages in docs/");
    let names = docs.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| format!("docs/{}", name.to_string_lossy()));
    pages.extend(names.filter(|name| name.ends_with(".md")));

    let mut dead = Vec::new();
    let mut leads: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for page in &pages {
        for (number, link) in links(&text(page)) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                _ => resolved(page, path),
            };
            if !root().join(&target).exists() {
                dead.push(format!("{page}:{number}: {link}: there is no {target}"));
            } else if target.ends_with(".md") {
                if !anchor.is_empty() && !anchors(&text(&target)).contains(anchor) {
                    dead.push(format!("{page}:{number}: {link}: no such heading"));
                }
                leads.entry(page).or_default().push(target);
            }
        }
    }

    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut next = vec!["README.md".to_owned()];
    while let Some(page) = next.pop() {
        for target in leads.get(page.as_str()).into_iter().flatten() {
            if reached.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    pages.retain(|page| !reached.contains(page));
    (dead, pages)
}

fn text(page: &str) -> String {
    fs::read_to_string(root().join(page)).expect("text")
}

/// A link's path from the root, given the page that it stands in.
fn resolved(page: &str, path: &str) -> String {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut parts: Vec<&str> = folder.iter().filter_map(|part| part.to_str()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((at + 1, line))
    })
}

/// The relative links of a page, with the numbers of their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Links in code are not followed.
        let line: String = line.split('`').step_by(2).collect();
        for (start, end) in [("](", ')'), ("]: ", ' '), ("href=\"", '"'), ("src=\"", '"')] {
            let may_be = start != "]: " || line.starts_with('[');
            for rest in line.split(start).skip(1).filter(|_| may_be) {
                let link = rest.split(end).next().unwrap_or_default();
                found.push((number, link.trim_matches(['<', '>']).to_owned()));
            }
        }
    }
    found.retain(|(_, link)| !link.contains(':') && !link.is_empty());
    found
}

/// What may follow `#` in a link to a page, as browsers of repositories make it of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        for attribute in ["id=\"", "name=\""] {
            let names = line.split(attribute).skip(1);
            found.extend(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
        }
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if level == 0 || !title.starts_with(' ') {
            continue;
        }
        let anchor = anchor(title.trim());
        // If a heading stands on the page again, its anchor has a number.
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(numbered);
        found.extend(names.find(|name| !found.contains(name)));
    }
    found
}

fn anchor(title: &str) -> String {
    let mut words = String::new();
    // The text of a link in the heading counts, and its target does not.
    for part in title.split("](") {
        let rest = part.split_once(')').filter(|_| !words.is_empty());
        words += rest.map_or(part, |(_, rest)| rest);
    }
    let kept = words.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}
