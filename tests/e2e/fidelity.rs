//! An image with every kind of entry, seen in a pod: what the image specification makes of it.
//!
//! The image and what is due of it come from `scripts/lib/fidelity.py`.

use std::collections::BTreeMap;
use std::fs;

use crate::support::host::Host;
use crate::support::setup;
use crate::tests;

tests![every_entry_is_what_the_specification_makes_of_it];

/// Lines of files by path.
fn by_path(lines: &str) -> BTreeMap<&str, &str> {
    let lines = lines.lines();
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

/// A path as the probe writes it, readable.
fn shown(hex: &str) -> String {
    let byte = |n: usize| u8::from_str_radix(&hex[n..n + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn every_entry_is_what_the_specification_makes_of_it() {
    let host = Host::with_config("fidelity", "user: root\n");
    let output = host.ssh("/probe / t").run();
    assert_eq!(output.code, Some(0), "{output}");
    let text = output.text();
    let found = by_path(&text);
    let expected = setup::get().stage.join("images/fidelity/expected");
    let expected = fs::read_to_string(expected).unwrap();
    let expected = by_path(&expected);
    assert!(expected.len() > 70, "{}", expected.len());
    let paths: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let mut differences = String::new();
    for path in paths {
        let (is, due) = (found.get(path), expected.get(path));
        if is != due {
            let show = |line: Option<&&str>| line.map_or("nothing".into(), ToString::to_string);
            differences += &format!("{}\n  is  {}\n  due {}\n", shown(path), show(is), show(due));
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
