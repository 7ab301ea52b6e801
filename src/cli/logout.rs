//! `podspawn logout`: forgets what `podspawn login`, docker or podman have kept for a registry.

use std::path::{Path, PathBuf};

use podspawn_images::credentials::{Keeper, Scope, erase};

use super::Place;
use crate::exit::{Exit, Failure};
use crate::{output, registries};

/// Arguments of `podspawn logout`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The registry
    #[arg(value_name = "REGISTRY", value_parser = registries::parse)]
    registry: (String, String),
    /// The auth file to change, instead of $REGISTRY_AUTH_FILE or all of the usual ones
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    authfile: Option<PathBuf>,
    /// Log the whole host out: from the file that registries.auth names (for root)
    #[arg(long)]
    system: bool,
}

/// Logs out, everywhere the next pull would look.
///
/// # Errors
///
/// When there was nothing to forget, or it cannot be changed.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let (registry, path) = &args.registry;
    let scope = Scope { registry, path };
    let files = match args.system {
        true => vec![super::login::file(&place, true, None, scope)?],
        false => registries::auth_files(&place.directories, args.authfile.as_deref(), |v| {
            std::env::var_os(v)
        }),
    };
    let config = registries::config(&place.config, &place.directories, args.authfile.as_deref());
    let mut had = Vec::new();
    for file in &files {
        had.extend(erase(&config.credentials, file, scope)?);
    }
    if had.is_empty() {
        return Err(Failure::new(format!("nobody is logged in to {registry}")));
    }
    for keeper in had {
        let keeper = match keeper {
            Keeper::File(file) => file.display().to_string(),
            Keeper::Helper(name) => format!("docker-credential-{name}"),
        };
        output::notice(&format!("logged out of {registry}: removed from {keeper}"));
    }
    Ok(Exit::Success)
}
