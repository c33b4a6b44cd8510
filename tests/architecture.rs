//! The house rules of `docs/architecture.md`, read off the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. Arrows never go back up: [`arrows_have_no_cycle`].
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli", "control"]),
    ("cli", &["control", "host", "mpath", "passthrough_scsi"]),
    (
        "control",
        &[
            "cli",
            "guest",
            "host",
            "io",
            "mpath",
            "passthrough_scsi",
            "queue",
            "scsi",
            "sim",
            "sys",
            "vhost_blk",
            "vhost_scsi",
            "vhost_user",
        ],
    ),
    ("vhost_user", &["guest", "io", "queue", "sys", "vhost_blk"]),
    ("queue", &["guest", "io", "mpath", "passthrough_scsi", "scsi", "sys"]),
    ("vhost_blk", &["guest", "io", "scsi", "virtio"]),
    ("vhost_scsi", &["guest", "io", "scsi", "virtio"]),
    ("host", &["io", "passthrough_scsi", "scsi", "sim", "sys"]),
    ("passthrough_scsi", &["io", "scsi", "sim", "sys"]),
    ("guest", &["io", "sys"]),
    ("mpath", &["io", "scsi"]),
    ("sim", &["io", "scsi"]),
    ("sys", &["io", "scsi"]),
    ("io", &["scsi"]),
    ("scsi", &[]),
    ("virtio", &[]),
];

/// Modules that read no clock, open no file, start no thread.
const PURE: &[&str] = &["scsi", "virtio", "mpath", "sim", "io", "queue/dispatch"];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["guest", "sys", "passthrough_scsi"];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("readable source tree") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let name = |f: &Path| f.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    files.iter().map(|f| (name(f), fs::read_to_string(f).expect("UTF-8"))).collect()
}

/// `queue/dispatch.rs` belongs to `queue`.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

fn is_test(file: &str) -> bool {
    file.contains("tests")
}

/// The code above a file's own test module, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().map(|l| l.split("//").next().unwrap())
}

fn edges() -> BTreeMap<(String, String), String> {
    let mut edges = BTreeMap::new();
    for (file, text) in sources().iter().filter(|(f, _)| !is_test(f) && f != "lib.rs") {
        let from = module(file);
        for line in code(text) {
            let root = if from == "main" { "vhost_mpath::" } else { "crate::" };
            for used in line.split(root).skip(1) {
                let to: String =
                    used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if to != from && !to.is_empty() {
                    edges.insert((from.to_owned(), to), format!("{file}: {}", line.trim()));
                }
            }
        }
    }
    edges
}

#[test]
fn modules_use_only_what_the_house_allows() {
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for ((from, to), place) in edges() {
        let list = allowed.get(from.as_str()).unwrap_or_else(|| panic!("unknown module {from}"));
        if !list.contains(&to.as_str()) {
            wrong.push(format!("{from} may not use {to}: {place}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arrows_have_no_cycle() {
    // `cli` and `control` are one storey: options and what they configure.
    let mut left: BTreeMap<&str, BTreeSet<&str>> = MAY_USE
        .iter()
        .map(|(from, to)| {
            let to = to.iter().copied().filter(|t| !(*from == "control" && *t == "cli"));
            (*from, to.collect())
        })
        .collect();
    while !left.is_empty() {
        let leaf = left.iter().find(|(_, to)| to.is_empty()).map(|(from, _)| *from);
        let leaf = leaf.unwrap_or_else(|| panic!("a cycle among {:?}", left.keys()));
        left.remove(leaf);
        left.values_mut().for_each(|to| {
            to.remove(leaf);
        });
    }
}

#[test]
fn pure_modules_touch_neither_clock_nor_world() {
    const WORLD: &[&str] = &[
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::os",
        "std::thread",
        "std::process",
        "std::env",
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if is_test(&file) || !PURE.iter().any(|p| file.starts_with(p)) {
            continue;
        }
        for line in code(&text) {
            if WORLD.iter().any(|w| line.contains(w)) {
                wrong.push(format!("{file}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let allowed = UNSAFE.contains(&module(&file));
        let uses =
            code(&text).any(|l| l.split(|c: char| !c.is_alphanumeric()).any(|w| w == "unsafe"));
        if uses && !allowed {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "unsafe in {wrong:?}");
}

#[test]
fn every_module_says_what_it_is() {
    for (file, text) in sources().iter().filter(|(f, _)| !is_test(f)) {
        assert!(text.starts_with("//!"), "{file} has no module documentation");
    }
}

/// What the daemon can tell, an operator can look up.
#[test]
fn every_event_is_on_the_operators_page() {
    let page = include_str!("../docs/operations.md");
    let mut events = BTreeSet::new();
    for (file, text) in sources().iter().filter(|(f, _)| !is_test(f) && module(f) == "control") {
        let text: String = code(text).map(|line| line.trim().to_owned() + " ").collect();
        for begins in ["Notice::new( ", "Notice::new(", "notice( ", "notice(", "name: "] {
            for rest in text.split(begins).skip(1).filter_map(|rest| rest.strip_prefix('"')) {
                let name = rest.split('"').next().unwrap();
                if !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                    events.insert((name.to_owned(), file.clone()));
                }
            }
        }
    }
    assert!(events.len() >= 30, "the events are not found any more: {events:?}");
    let missing: Vec<_> =
        events.iter().filter(|(name, _)| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
}
