//! `podspawn pull`: an image from a registry into the user's store.
//!
//! The verb enters the user's namespace and pulls there. A session, which must
//! stay a single thread on the host, has a child process do the same.

use std::path::{Path, PathBuf};

use podspawn_images::cache::Cache;
use podspawn_images::digest::Digest;
use podspawn_images::pull::{PullOptions, fill, pull};
use podspawn_images::reference::Reference;
use podspawn_runtime::process::in_child as run_in_child;
use serde_json::json;

use super::format::{Answer, says};
use super::{Place, namespace};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::{self, progress};
use crate::registries;

/// Arguments of `podspawn pull`.
#[derive(Debug, clap::Args)]
#[command(mut_arg(
    "format",
    says("Progress and result for people, or as JSON objects on standard output")
))]
pub struct Args {
    /// The image: ubuntu:24.04, registry.example/team/image@sha256:DIGEST
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// The auth file with user names and passwords, instead of $REGISTRY_AUTH_FILE or the usual ones
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Fetch it for the whole host: into storage.system_cache, from where every
    /// user's pull takes it (for root)
    #[arg(long)]
    system: bool,
    /// Show nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Pulls, and prints the digest.
///
/// # Errors
///
/// One line that names the reference.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let options = options(&place, args.authfile.as_deref());
    let digest = match args.system {
        true => for_host(&place, args, &options)?,
        false => {
            let map = namespace::map_of(&place.account)?;
            if args.answer.format == Format::Text && !args.quiet {
                namespace::note(&map, &place.account);
            }
            let store = namespace::open_store(&map, &place.root)?;
            let progress = progress::of_verb(args.answer.format, args.quiet);
            let image = pull(&store, &args.reference, &options, &*progress);
            // Before anything else is said: it may be drawn on the same terminal.
            drop(progress);
            image?.digest
        }
    };
    let digest = digest.to_string();
    output::answer(&match args.answer.format {
        Format::Text => format!("{digest}\n"),
        Format::Json => {
            let reference = args.reference.to_string();
            format!(
                "{}\n",
                json!({"event": "image", "reference": reference, "digest": digest})
            )
        }
    })?;
    Ok(Exit::Success)
}

/// Fetches the image for all users of the host.
fn for_host(place: &Place, args: &Args, options: &PullOptions) -> Result<Digest, Failure> {
    if place.account.uid != 0 {
        return Err(Failure::new("--system is for root: use sudo"));
    }
    let Some(cache) = &options.cache else {
        return Err(Failure::new(
            "storage.system_cache is none: there is nowhere to put it",
        ));
    };
    let progress = progress::of_verb(args.answer.format, args.quiet);
    let digest = fill(cache, &args.reference, options, &*progress);
    drop(progress);
    Ok(digest?)
}

/// Pulls an image on the way to a session, in a process of its own.
///
/// # Errors
///
/// One line that names the reference.
pub fn for_session(place: &Place, image: &Reference) -> Result<(), Failure> {
    let work = || -> Result<(), Failure> {
        let store = namespace::open_store(&namespace::map_of(&place.account)?, &place.root)?;
        let options = options(place, None);
        // Here, not in the session: it has a thread.
        let progress = progress::of_session();
        pull(&store, image, &options, &*progress)?;
        Ok(())
    };
    run_in_child(|| work().map_err(|failure| failure.line().to_owned()))?.map_err(Failure::new)
}

/// How to pull: what the configuration, the environment and the command line say.
pub(super) fn options(place: &Place, authfile: Option<&Path>) -> PullOptions {
    PullOptions {
        policy: place.config.policy.clone(),
        cache: place.config.system_cache.clone().map(Cache::new),
        limits: place.config.limits.clone(),
        registries: registries::config(&place.config, &place.directories, authfile),
        ..PullOptions::default()
    }
}
