//! Completions for shells, made of the program's own command line.
//!
//! `PODSPAWN_COMPLETIONS=DIR cargo test --test completions` keeps them in DIR, for the
//! package.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

#[test]
fn every_shell_is_told_the_verbs() {
    let made = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("PODSPAWN_COMPLETIONS").map(PathBuf::from);
    let dir = kept.unwrap_or_else(|| made.path().to_owned());
    fs::create_dir_all(&dir).unwrap();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = podspawn::cli::Cli::command();
        let path = generate_to(shell, &mut command, "podspawn", &dir).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(
                text.contains(verb.get_name()),
                "{shell}: {}",
                verb.get_name()
            );
        }
    }
}
