//! Who imports whom inside a crate, by the `use` lines of its files.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{read, rust_files, without_visibility};

/// The modules of a crate by their paths (`kernel::line`; the top is empty) and their imports from each other.
///
/// An import through a re-export is an import of the module that declares the name; a re-export alone is none.
pub(crate) struct Imports {
    modules: BTreeMap<String, Vec<Use>>,
    imports: BTreeMap<String, BTreeSet<String>>,
    /// Imports of names that the crate's top has from elsewhere.
    pub(crate) through_the_top: Vec<String>,
}

/// One name of a `use` line.
struct Use {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

impl Imports {
    /// Reads the files of a crate.
    pub(crate) fn of(crate_name: &str) -> Self {
        let folder = format!("crates/{crate_name}/src");
        let mut modules = BTreeMap::new();
        for path in rust_files(&folder) {
            let file = path[folder.len() + 1..].trim_end_matches(".rs");
            let file = file.trim_end_matches("/mod");
            if let Some(source) = read(&path).filter(|_| file != "main") {
                let module = if file == "lib" { "" } else { file };
                modules.insert(module.replace('/', "::"), uses(&source.text));
            }
        }
        let mut all = Self {
            modules,
            imports: BTreeMap::new(),
            through_the_top: Vec::new(),
        };
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, uses) in &all.modules {
            for one in uses {
                let Some((from_top, declares)) = all.declaring(module, &one.path) else {
                    continue;
                };
                if from_top && !module.is_empty() {
                    let path = one.path.join("::");
                    let owner = if declares.is_empty() {
                        "another crate"
                    } else {
                        &declares
                    };
                    let line = format!("{module} imports {path}, which is {owner}'s");
                    all.through_the_top.push(line);
                }
                if declares != *module && !one.is_public {
                    imports.entry(module.clone()).or_default().insert(declares);
                }
            }
        }
        all.imports = imports;
        all
    }

    /// The module that declares what a path names, and whether the path goes through a re-export at the top; `None` if
    /// it is not of this crate.
    fn declaring(&self, from: &str, path: &[String]) -> Option<(bool, String)> {
        let mut at = from.to_owned();
        let mut rest = path;
        let mut is_ours = false;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => at = String::new(),
                "super" => at = parent(&at).to_owned(),
                "self" => {}
                name => {
                    let child = child(&at, name);
                    if !self.modules.contains_key(&child) {
                        break;
                    }
                    at = child;
                }
            }
            is_ours = true;
            rest = others;
        }
        if !is_ours {
            return None;
        }
        let Some(name) = rest.first() else {
            return Some((false, at));
        };
        let mut exports = self.modules.get(&at)?.iter();
        let export = exports.find(|one| one.is_public && one.name == *name);
        let declares = export.and_then(|one| self.declaring(&at, &one.path));
        let declares = declares.map_or_else(|| at.clone(), |(_, declares)| declares);
        Some((at.is_empty() && export.is_some(), declares))
    }

    /// Every import: who, and whom.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&String, &String)> {
        let each = |(from, all)| std::iter::repeat(from).zip(all);
        self.imports.iter().flat_map(each)
    }

    /// Modules outside of the rooms that import evidence and other such modules only.
    pub(crate) fn leaves(&self, rooms: &[&str]) -> BTreeSet<String> {
        let first = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
        let outside = |module: &&String| !module.is_empty() && !rooms.contains(&&*first(module));
        let mut leaves: BTreeSet<String> = self.modules.keys().filter(outside).cloned().collect();
        loop {
            let all = leaves.clone();
            leaves.retain(|module| {
                let mut targets = self.imports.get(module).into_iter().flatten();
                targets.all(|to| first(to) == "evidence" || all.contains(to))
            });
            if leaves == all {
                return leaves;
            }
        }
    }

    /// The imports that are part of a circle of a room's modules, or lead from one circle to another.
    pub(crate) fn circles(&self, room: &str) -> Vec<String> {
        let mut left: Vec<_> = self.edges().collect();
        left.retain(|(from, to)| [from, to].iter().all(|module| module.starts_with(room)));
        loop {
            // An import is on no circle if nobody imports its importer, or its target imports nobody.
            let all = left.clone();
            left.retain(|(from, to)| {
                let is_imported = all.iter().any(|(_, other)| other == from);
                is_imported && all.iter().any(|(other, _)| other == to)
            });
            if left.len() == all.len() {
                return left
                    .iter()
                    .map(|(from, to)| format!("{from} imports {to}"))
                    .collect();
            }
        }
    }
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn child(module: &str, name: &str) -> String {
    let parts = [module, name];
    parts[usize::from(module.is_empty())..].join("::")
}

/// The names of all `use` lines.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(first) = without_visibility(line).strip_prefix("use ") else {
            continue;
        };
        let is_public = line.trim_start().starts_with("pub");
        let mut tree = first.to_owned();
        while !tree.contains(';') {
            tree.extend(lines.next());
        }
        let tree = tree.split(';').next().unwrap_or_default();
        expand(&[], tree, is_public, &mut found);
    }
    found
}

/// `a::{b, c::d as e}` as its single paths.
fn expand(before: &[String], tree: &str, is_public: bool, found: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some((path, group)) = tree.split_once('{') {
        let before: Vec<String> = before.iter().cloned().chain(segments(path)).collect();
        let group = group.trim_end().trim_end_matches('}');
        let (mut depth, mut from) = (0, 0);
        for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth <= 0 => {
                    expand(&before, &group[from..at], is_public, found);
                    from = (at + 1).min(group.len());
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
    let path: Vec<String> = before.iter().cloned().chain(segments(path)).collect();
    let last = path.last().map_or("", String::as_str);
    let name = if name.is_empty() { last } else { name };
    if !tree.is_empty() {
        found.push(Use {
            name: name.trim().to_owned(),
            path,
            is_public,
        });
    }
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    let parts = path.split("::").map(str::trim);
    parts
        .filter(|part| !part.is_empty() && *part != "*")
        .map(str::to_owned)
}
