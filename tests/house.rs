//! House rules that a compiler does not know: which room may use which, and how long a file may be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Lines of a source file; beyond, it is more than one thing.
const LONGEST: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The rooms as src/lib.rs lists them, from top to bottom.
fn rooms() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("the list of rooms");
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

/// The room that a file of `src` belongs to; `None` for lib.rs and the programs.
fn room_of(file: &Path, rooms: &[String]) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    rooms.iter().find(|room| *room == name).cloned()
}

/// Source without comments. Text in quotes stays: none of ours looks like a path of the crate.
fn without_comments(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every room that the source names as `crate::room` or in `crate::{room, ...}`.
fn used(source: &str) -> BTreeSet<String> {
    let source = without_comments(source);
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        // `mycrate::` and `$crate::` of a macro: only the first is somebody else's.
        if source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &source[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(name(rest)),
            Some(group) => found.extend(top_level(group)),
        }
    }
    found
}

fn name(text: &str) -> Option<String> {
    let name: String =
        text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of a group of imports, after its opening brace.
fn top_level(group: &str) -> Vec<String> {
    let mut names: Vec<String> = name(group).into_iter().collect();
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

/// What that room may not do, in words; empty if all is well.
fn faults(room: &str, source: &str, rooms: &[String]) -> Vec<String> {
    let place = |name: &str| rooms.iter().position(|room| room == name);
    let own = place(room).expect("a room of lib.rs");
    let mut faults = Vec::new();
    for other in used(source) {
        if place(&other).is_some_and(|other| other < own) {
            faults.push(format!("{room} uses {other}, which lies above it"));
        }
        // The runner in `jobs` joins them; neither knows of the other.
        if matches!((room, other.as_str()), ("sandbox", "output") | ("output", "sandbox")) {
            faults.push(format!("{room} uses {other}: the two never meet"));
        }
    }
    faults
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let rooms = rooms();
    assert!(rooms.len() > 10, "src/lib.rs lists {rooms:?}");
    let mut faulty = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let Some(room) = room_of(&file, &rooms) else { continue };
        let source = fs::read_to_string(&file).unwrap();
        faulty.extend(
            faults(&room, &source, &rooms).into_iter().map(|fault| format!("{}: {fault}", file.display())),
        );
        seen.insert(room);
    }
    assert_eq!(seen.len(), rooms.len(), "every room has a file");
    assert!(faulty.is_empty(), "{}", faulty.join("\n"));
}

#[test]
fn the_gate_does_no_input_or_output() {
    let rooms = rooms();
    for file in rust_files(&root().join("src/gate")) {
        let source = without_comments(&fs::read_to_string(&file).unwrap());
        for banned in
            ["std::fs", "std::net::Tcp", "tokio::", "std::io", "rusqlite", "Timestamp::now", "Instant::now"]
        {
            // Its tests may take a clock to hand to it.
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = file.to_string_lossy().contains("tests");
            assert!(is_test || !code.contains(banned), "{}: {banned}", file.display());
        }
        assert_eq!(room_of(&file, &rooms).as_deref(), Some("gate"));
    }
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for dir in ["src", "init/src", "tests"] {
        for file in rust_files(&root().join(dir)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > LONGEST {
                long.push(format!("{}: {lines} lines, {LONGEST} at most: make it two", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// A metric that nobody counts stands at 0 for ever, and says that all is well.
#[test]
fn every_metric_is_counted_somewhere() {
    let all = |dir: &str| -> String {
        let source = |file: &PathBuf| without_comments(&fs::read_to_string(file).unwrap());
        rust_files(&root().join(dir)).iter().filter(|file| !file.ends_with("tests.rs")).map(source).collect()
    };
    let metrics = fs::read_to_string(root().join("src/metrics/mod.rs")).unwrap();
    let handles: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": "))
        .filter(|(_, kind)| kind.starts_with("Int") || kind.starts_with("Histogram"))
        .map(|(name, _)| name)
        .collect();
    assert!(handles.len() > 15, "{handles:?}");
    let counting: String =
        rooms().iter().filter(|room| *room != "metrics").map(|room| all(&format!("src/{room}"))).collect();
    let idle: Vec<&str> = handles
        .into_iter()
        .filter(|name| {
            !["inc(", "inc_by(", "dec(", "set(", "observe("]
                .iter()
                .any(|how| counting.contains(&format!(".{name}.{how}")))
                && !counting.contains(&format!("metrics.{name})"))
        })
        .collect();
    assert!(idle.is_empty(), "nobody counts {idle:?}");
}

/// Pages that name a file of the repository name one that is there.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> = Vec::new();
    for dir in ["", "docs"] {
        let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    assert!(pages.len() > 8, "{pages:?}");
    let mut dead = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let file = link.split('#').next().unwrap_or_default();
            if !link.contains("://") && !file.is_empty() && !page.parent().unwrap().join(file).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// A code of which no answer is looked at as a whole can change its body unseen. What counts is a snapshot that a test of
/// the agent still takes.
#[test]
fn every_refusal_has_a_snapshot() {
    let mut taken = String::new();
    for dir in ["tests/it", "src/api/tests", "src/gate/tests", "src/jobs/tests"] {
        let Ok(entries) = fs::read_dir(root().join(dir).join("snapshots")) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let text = fs::read_to_string(&path).unwrap();
            let source =
                text.lines().find_map(|line| line.strip_prefix("source: ")).expect("where it is taken");
            let test = fs::read_to_string(root().join(source)).unwrap_or_default();
            let stem = path.file_stem().unwrap().to_string_lossy();
            let name = stem.rsplit("__").next().unwrap();
            let by_function =
                format!("fn {}(", name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()));
            assert!(
                test.contains(&format!("\"{name}\"")) || test.contains(&by_function),
                "{}: no test of {source} takes it",
                path.display()
            );
            taken += &text;
        }
    }
    let code_in = |code: &str| taken.contains(&format!("\"code\": \"{code}\""));
    let lacking: Vec<&str> =
        quickcmd::wire::Code::ALL.iter().map(|code| code.as_str()).filter(|code| !code_in(code)).collect();
    assert!(lacking.is_empty(), "no snapshot of a refusal with {lacking:?}");
    assert!(!code_in("NO_SUCH_CODE"));
}

/// The rules must be able to fail.
#[test]
fn wrong_sources_are_found() {
    let rooms: Vec<String> = ["agent", "jobs", "output", "sandbox", "base"].map(str::to_owned).into();
    let faults = |room: &str, source: &str| faults(room, source, &rooms).len();
    assert_eq!(
        faults("jobs", "use crate::{\n    base::clock::Timestamp,\n    sandbox::{Engine, Stop},\n};"),
        0
    );
    assert_eq!(faults("jobs", "use crate::agent::run;"), 1);
    assert_eq!(faults("jobs", "fn f() { crate::agent::run() }"), 1);
    assert_eq!(faults("jobs", "use crate::{base::{ids, clock}, agent::run};"), 1);
    assert_eq!(faults("jobs", "// like crate::agent::run\n/// [`crate::agent`]"), 0);
    assert_eq!(faults("jobs", "use othercrate::agent::run;"), 0);
    assert_eq!(faults("sandbox", "use crate::output::Outputs;"), 2);
    assert_eq!(faults("output", "use crate::sandbox::Engine;"), 1);
    assert_eq!(faults("base", "use crate::base::ids;"), 0);
}
