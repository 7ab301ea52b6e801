//! docs/SECURITY.md promises nothing that no test shows: every file that it names is there, and
//! every test.

use std::fs;
use std::path::Path;

const DOCUMENT: &str = include_str!("../docs/SECURITY.md");

/// Where sources are.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of the table of boundaries, row by row, without its head.
fn rows() -> Vec<[&'static str; 3]> {
    let lines = DOCUMENT.lines().filter(|line| line.starts_with('|'));
    let cells = lines.skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        <[&str; 3]>::try_from(cells).unwrap_or_else(|cells| panic!("{} cells: {line}", cells.len()))
    });
    cells.collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether `name` is a test of the file: marked as one, or in the list of those that are run.
fn is_test(source: &str, name: &str) -> bool {
    let marked = |at: usize| source[..at].trim_end().ends_with("#[test]");
    let head = format!("fn {name}()");
    let as_function = source.match_indices(&head);
    let listed = |list: &str, end: char| {
        let words = |text: &str| -> Vec<String> {
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .map(str::to_owned)
                .collect()
        };
        source
            .split(list)
            .skip(1)
            .any(|rest| words(rest.split(end).next().unwrap_or_default()).contains(&name.into()))
    };
    let mut functions = as_function.map(|(at, _)| at).peekable();
    let is_function = functions.peek().is_some();
    functions.any(marked)
        || is_function && listed("tests![", ']')
        || source.contains(&format!("\n{name}() {{")) && listed("\nfor test in ", ';')
}

#[test]
fn every_boundary_has_a_test_that_is_there() {
    let rows = rows();
    assert!(rows.len() > 20);
    for [between, _, shown] in rows {
        let mut tests = 0;
        for part in shown.split("<br>") {
            let mut words = quoted(part);
            let file = words.next().unwrap_or_else(|| panic!("{between}: {part}"));
            let path = root().join(file);
            assert!(path.exists(), "{between}: there is no {file}");
            for name in words {
                let source = fs::read_to_string(&path).unwrap();
                assert!(
                    is_test(&source, name),
                    "{between}: {file} has no test {name}"
                );
                tests += 1;
            }
        }
        assert!(tests > 0, "{between}: no test is named");
    }
}

#[test]
fn every_path_is_there() {
    let paths = quoted(DOCUMENT)
        .filter(|word| word.contains('/') && !word.starts_with('/') && !word.contains(' '));
    let mut seen = 0;
    for path in paths {
        assert!(root().join(path).exists(), "there is no {path}");
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn what_only_looks_like_a_test_is_none() {
    let source =
        "tests![\n    listed,\n];\nfn listed() {}\nfn helper() {}\n#[test]\nfn marked() {}\n";
    for (name, expected) in [("listed", true), ("marked", true), ("helper", false)] {
        assert_eq!(is_test(source, name), expected, "{name}");
    }
    let script = "works() {\n}\nleft_out() {\n}\nfor test in works; do\n";
    let script = format!("\n{script}");
    assert!(is_test(&script, "works") && !is_test(&script, "left_out"));
}
