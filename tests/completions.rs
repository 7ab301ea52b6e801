//! The completions in `completions/` are those of the program.
//!
//! `PODSPAWN_WRITE_COMPLETIONS=1 cargo test --test completions` writes them anew.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

#[test]
fn the_completions_are_those_of_the_program() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
    let made = tempfile::tempdir().unwrap();
    let write = std::env::var_os("PODSPAWN_WRITE_COMPLETIONS").is_some();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = podspawn::cli::Cli::command();
        let path = generate_to(shell, &mut command, "podspawn", made.path()).unwrap();
        let name = path.file_name().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("server-setup"), "{name:?}");
        if write {
            fs::create_dir_all(&kept).unwrap();
            fs::write(kept.join(name), &text).unwrap();
        }
        let how = "run PODSPAWN_WRITE_COMPLETIONS=1 cargo test --test completions";
        let same = fs::read_to_string(kept.join(name)).is_ok_and(|kept| kept == text);
        assert!(same, "{name:?} differs from the program; {how}");
    }
}
