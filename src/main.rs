//! The podspawn command.

use podspawn::{cli, login_shell, output};

fn main() {
    let exit = login_shell::arguments(std::env::args_os().collect(), login_shell::is_this_program)
        .and_then(cli::parse)
        .and_then(|cli| cli.map_or(Ok(podspawn::exit::Exit::Success), |cli| cli::run(&cli)))
        .unwrap_or_else(|failure| {
            output::failure(failure.line());
            failure.exit()
        });
    exit.leave()
}
