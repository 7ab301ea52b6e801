//! `podspawn list-users`: the container users of this host.

use serde_json::json;

use super::format::{Answer, says};
use crate::exit::{Exit, Failure};
use crate::login_shell;
use crate::output::progress::Format;
use crate::output::{self, table::table};
use crate::server::accounts;

/// Arguments of `podspawn list-users`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("A table for people, or a JSON array")))]
pub struct Args {
    #[command(flatten)]
    answer: Answer,
}

/// Lists.
///
/// # Errors
///
/// When the user database cannot be read.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let users = accounts::list()?;
    output::answer(&match args.answer.format {
        Format::Json => {
            let all = users.iter().map(|user| {
                json!({
                    "name": user.name,
                    "uid": user.uid,
                    "gid": user.gid,
                    "home": user.home,
                    "shell": user.shell,
                    "shell_is_podspawn": login_shell::is_this_program(&user.shell),
                    "subuids": user.subids()[0].len(),
                    "subgids": user.subids()[1].len(),
                })
            });
            format!("{:#}\n", all.collect::<serde_json::Value>())
        }
        Format::Text => {
            let rows: Vec<[String; 5]> = users
                .iter()
                .map(|user| {
                    [
                        user.name.clone(),
                        user.uid.to_string(),
                        user.subids()[0].len().to_string(),
                        user.home.display().to_string(),
                        user.shell.display().to_string(),
                    ]
                })
                .collect();
            table(["NAME", "UID", "SUBUIDS", "HOME", "SHELL"], &rows)
        }
    })?;
    Ok(Exit::Success)
}
