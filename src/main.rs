//! The podspawn command.

use std::io::Write;

use clap::Parser;
use podspawn::cli::{self, Cli};

fn main() {
    let exit = match cli::run(&Cli::parse()) {
        Ok(exit) => exit,
        Err(failure) => {
            let line: String = failure
                .line()
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            let _ = writeln!(std::io::stderr(), "podspawn: {line}");
            failure.exit()
        }
    };
    exit.leave()
}
