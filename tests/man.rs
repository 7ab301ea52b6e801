//! The manual pages in `man/` are what the help says.
//!
//! `PODSPAWN_WRITE_MAN=1 cargo test --test man` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::CommandFactory;

#[test]
fn the_manual_is_what_the_help_says() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let made = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(podspawn::cli::Cli::command(), made.path()).unwrap();
    let made = pages(made.path());
    assert!(made.contains_key("podspawn.1") && made.contains_key("podspawn-spawn.1"));
    if std::env::var_os("PODSPAWN_WRITE_MAN").is_some() {
        fs::remove_dir_all(&kept).unwrap();
        fs::create_dir(&kept).unwrap();
        for (name, page) in &made {
            fs::write(kept.join(name), page).unwrap();
        }
    }
    let how = "run PODSPAWN_WRITE_MAN=1 cargo test --test man";
    assert!(pages(&kept) == made, "man/ differs from the help; {how}");
}

fn pages(dir: &Path) -> BTreeMap<String, String> {
    let page = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    };
    fs::read_dir(dir).unwrap().map(page).collect()
}
