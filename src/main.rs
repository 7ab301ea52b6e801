//! The podspawn command.

use podspawn::{cli, output};

fn main() {
    let exit = cli::parse(std::env::args_os())
        .and_then(|cli| cli.map_or(Ok(podspawn::exit::Exit::Success), |cli| cli::run(&cli)))
        .unwrap_or_else(|failure| {
            output::failure(failure.line());
            failure.exit()
        });
    exit.leave()
}
