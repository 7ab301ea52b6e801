//! `podspawn login`: shows a registry a user name and a password, and keeps them.
//!
//! The password comes from the terminal or from standard input, never from the arguments, which
//! every user of the host can read.

use std::io::Read;
use std::path::{Path, PathBuf};

use podspawn_images::credentials::{Credential, Keeper, Scope, Secret, store};
use podspawn_images::login::{Verdict, login};
use podspawn_images::registry::Timeouts;

use super::Place;
use crate::exit::{Exit, Failure};
use crate::output::prompt::Terminal;
use crate::{output, registries};

/// Arguments of `podspawn login`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry: docker.io, registry.example:5000, ghcr.io/team
    #[arg(value_name = "REGISTRY", value_parser = registries::parse)]
    registry: (String, String),
    /// The user name; asked for where it is not given
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Take the password from standard input, without asking
    #[arg(long)]
    password_stdin: bool,
    /// The auth file to keep it in, instead of $REGISTRY_AUTH_FILE or the usual ones
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    authfile: Option<PathBuf>,
    /// Log in for the whole host: into the file that registries.auth names
    ///
    /// For root. Nobody else can read a new file; chgrp and chmod let a group.
    #[arg(long)]
    system: bool,
}

/// Longest password on standard input, in bytes.
const MOST: u64 = 64 << 10;

/// Logs in.
///
/// # Errors
///
/// When there is no password, the registry refuses it, or it cannot be kept.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let (registry, path) = &args.registry;
    let scope = Scope { registry, path };
    let file = file(&place, args.system, args.authfile.as_deref(), scope)?;
    let (username, password) = credentials(args)?;
    let config = registries::config(&place.config, &place.directories, args.authfile.as_deref());
    let sources = config.credentials.clone();
    let credential = Credential::Password {
        username: username.clone(),
        password: password.clone(),
    };
    let verdict = login(registry, path, credential, &config, Timeouts::default())?;
    let keeper = store(&sources, &file, scope, &username, &password)?;
    let keeper = match keeper {
        Keeper::File(file) => file.display().to_string(),
        Keeper::Helper(name) => format!("docker-credential-{name}"),
    };
    let at = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    output::notice(&match verdict {
        Verdict::Accepted => format!("logged in to {registry}{at} as {username}; kept in {keeper}"),
        Verdict::NotAsked => format!(
            "{registry}{at} asks nobody for a password, so this one is untried; kept in {keeper}"
        ),
    });
    Ok(Exit::Success)
}

/// The file that a login or logout is about.
pub(super) fn file(
    place: &Place,
    system: bool,
    named: Option<&Path>,
    scope: Scope<'_>,
) -> Result<PathBuf, Failure> {
    if !system {
        let files = registries::auth_files(&place.directories, named, |v| std::env::var_os(v));
        return Ok(registries::file_for_login(
            &files,
            &place.directories,
            scope,
        ));
    }
    if place.account.uid != 0 {
        return Err(Failure::new("--system is for root: use sudo"));
    }
    Ok(place.config.registries.auth.clone())
}

fn credentials(args: &Args) -> Result<(String, Secret), Failure> {
    let mut terminal = (!args.password_stdin).then(Terminal::open).flatten();
    let nobody =
        || Failure::new("there is no terminal to ask at: use --username and --password-stdin");
    let given_up = || Failure::new("no login, no change");
    let username = match (&args.username, &mut terminal) {
        (Some(name), _) => name.clone(),
        (None, Some(terminal)) => terminal.ask("Username: ")?.ok_or_else(given_up)?,
        (None, None) if args.password_stdin => {
            return Err(Failure::new("--password-stdin needs --username"));
        }
        (None, None) => return Err(nobody()),
    };
    // Basic authentication ends the name with a colon.
    if username.is_empty() || username.contains(':') || username.contains(char::is_control) {
        return Err(Failure::new("that is not a user name"));
    }
    let password = match &mut terminal {
        _ if args.password_stdin => from_stdin()?,
        Some(terminal) => terminal.ask_secretly("Password: ")?.ok_or_else(given_up)?,
        None => return Err(nobody()),
    };
    if password.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    Ok((username, Secret::new(password)))
}

/// All of standard input, but for the line break that echo and editors add.
fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MOST).read_to_string(&mut text);
    read.map_err(|e| Failure::new(format!("cannot read the password: {e}")))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
