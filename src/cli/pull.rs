//! `podspawn pull`: an image from a registry into the user's store.
//!
//! The verb enters the user's namespace and pulls there. A session, which must
//! stay a single thread on the host, has a child process do the same.

use std::path::{Path, PathBuf};

use podspawn_images::credentials::CredentialSources;
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::reference::Reference;
use podspawn_images::registry::{HostConfig, ProxyConfig, RegistryConfig};
use podspawn_runtime::process::in_child as run_in_child;
use serde_json::json;

use super::{Place, namespace};
use crate::account::Directories;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::{self, progress};

/// Arguments of `podspawn pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: ubuntu:24.04, registry.example/team/image@sha256:DIGEST
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Show nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    /// Progress and result for people, or as JSON objects on standard output
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

/// Pulls, and prints the digest.
///
/// # Errors
///
/// One line that names the reference.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let map = namespace::map_of(&place.account)?;
    if args.format == Format::Text && !args.quiet {
        namespace::note(&map, &place.account);
    }
    let store = namespace::open_store(&map, &place.root)?;
    let options = options(&place.config, &place.directories);
    let progress = progress::of_verb(args.format, args.quiet);
    let image = pull(&store, &args.reference, &options, &*progress);
    // Before anything else is said: it may be drawn on the same terminal.
    drop(progress);
    let digest = image?.digest.to_string();
    output::answer(&match args.format {
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

/// Pulls the configured image on the way to a session, in a process of its own.
///
/// # Errors
///
/// One line that names the reference.
pub fn for_session(place: &Place) -> Result<(), Failure> {
    let work = || -> Result<(), Failure> {
        let store = namespace::open_store(&namespace::map_of(&place.account)?, &place.root)?;
        let options = options(&place.config, &place.directories);
        // Here, not in the session: it has a thread.
        let progress = progress::of_session();
        pull(&store, &place.config.image, &options, &*progress)?;
        Ok(())
    };
    run_in_child(|| work().map_err(|failure| failure.line().to_owned()))?.map_err(Failure::new)
}

/// How registries are reached: what the configuration and the environment say.
fn options(config: &Config, directories: &Directories) -> PullOptions {
    let hosts = config.registries.hosts.iter().map(|(name, host)| {
        (
            name.clone(),
            HostConfig {
                insecure: host.insecure,
                mirrors: host.mirrors.clone(),
            },
        )
    });
    let usual = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    let variable = |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok());
    let auth = [
        directories
            .runtime
            .as_ref()
            .map(|dir| dir.join("containers/auth.json")),
        Some(directories.config.join("containers/auth.json")),
        Some(directories.home.join(".docker/config.json")),
    ];
    PullOptions {
        limits: config.limits.clone(),
        registries: RegistryConfig {
            hosts: hosts.collect(),
            cert_dirs: config
                .registries
                .certs
                .iter()
                .cloned()
                .chain(usual)
                .collect(),
            proxy: ProxyConfig {
                http: variable(["http_proxy", "HTTP_PROXY"]),
                https: variable(["https_proxy", "HTTPS_PROXY"]),
                no_proxy: variable(["no_proxy", "NO_PROXY"]),
            },
            credentials: CredentialSources {
                files: auth.into_iter().flatten().collect(),
                helper_dirs: std::env::var_os("PATH")
                    .map(|p| std::env::split_paths(&p).collect())
                    .unwrap_or_default(),
                ..CredentialSources::default()
            },
            ..RegistryConfig::default()
        },
        ..PullOptions::default()
    }
}
