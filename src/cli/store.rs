//! `podspawn store check`: finds damage in the user's store and mends what can be fetched again.

use std::path::Path;

use podspawn_images::digest::Digest;
use podspawn_images::pull::{PullOptions, pull};
use podspawn_images::reference::Reference;
use podspawn_images::store::{Damage, Damaged, Report, Store, affected};

use super::{Place, namespace};
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, progress};

/// Arguments of `podspawn store`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Find damage, and mend what can be fetched again
    ///
    /// Compares manifests and configurations with their digests, and the files of
    /// every layer with what was unpacked. What is damaged is pulled again, by
    /// digest; if that fails it stays as it is. Exit status 0 if all is well or
    /// was mended, 125 if damage is left.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Only say what is wrong
    #[arg(long)]
    no_repair: bool,
    /// Say nothing of what is well
    #[arg(long, short)]
    quiet: bool,
}

/// Runs the verb.
///
/// # Errors
///
/// When the store cannot be looked at.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let Verb::Check(check) = &args.verb;
    let place = Place::of_process(None, named)?;
    let Some(store) = namespace::open_existing(&place)? else {
        return Ok(Exit::Success);
    };
    let report = store.check(&())?;
    for damage in &report.damage {
        output::notice(&line(damage));
    }
    if report.damage.is_empty() {
        if !check.quiet {
            output::answer(&summary(&report))?;
        }
        return Ok(Exit::Success);
    }
    if check.no_repair {
        return Ok(Exit::Failed);
    }
    // Before, so that the images they name are found under their other names.
    for damage in &report.damage {
        if let Damaged::Name(file, None) = &damage.what {
            store.remove_name_file(file)?;
            output::notice(&format!("removed {}", file.display()));
        }
    }
    let options = super::pull::options(&place, None);
    let left = repair(&store, &report, &options)?;
    let again = store.check(&())?;
    if again.damage.is_empty() && left == 0 {
        if !check.quiet {
            output::answer(&format!("mended; {}", summary(&again)))?;
        }
        return Ok(Exit::Success);
    }
    Ok(Exit::Failed)
}

/// Fetches again what is damaged. Says how much could not be.
fn repair(store: &Store, report: &Report, options: &PullOptions) -> Result<usize, Failure> {
    let mut left = 0;
    let (images, layers) = affected(store, report)?;
    let mut names: Vec<(Digest, Vec<Reference>)> = Vec::new();
    for image in &images {
        names.push((image.clone(), store.names_of(image)?));
    }
    match store.set_aside(&images, &layers)? {
        None => {
            output::notice("a pod or a pull uses what is damaged: stop it, and check again");
            return Ok(images.len() + layers.len());
        }
        Some(aside) => {
            let mut whole = true;
            for (image, names) in &names {
                if let Err(failure) = fetch(store, image, names, options) {
                    output::notice(&format!("{image} cannot be mended: {}", failure.line()));
                    left += 1;
                    whole = false;
                }
            }
            if !whole {
                aside.put_back()?;
            }
        }
    }
    for damage in &report.damage {
        if let Damaged::Name(_, Some(name)) = &damage.what
            && !matches!(store.image(name), Ok(Some(_)))
            && let Err(error) = pull(store, name, options, &*progress::of_session())
        {
            output::notice(&format!("{name} cannot be mended: {}", chain(&error)));
            left += 1;
        }
    }
    Ok(left)
}

/// The image again, by its digest and from where one of its names says. One that has no name is
/// needed by nobody.
fn fetch(
    store: &Store,
    image: &Digest,
    names: &[Reference],
    options: &PullOptions,
) -> Result<(), Failure> {
    let mut failure = None;
    for name in names {
        let pinned = name.with_digest(image.clone());
        match pull(store, &pinned, options, &*progress::of_session()) {
            Ok(_) => {
                if !names.contains(&pinned) {
                    store.remove(&pinned)?;
                }
                output::notice(&format!("fetched {name} again ({image})"));
                return Ok(());
            }
            Err(error) => failure = Some(Failure::from(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

fn line(damage: &Damage) -> String {
    let why = &damage.why;
    match &damage.what {
        Damaged::Name(_, Some(name)) => format!("damaged: name {name}: {why}"),
        Damaged::Name(file, None) => format!("damaged: name in {}: {why}", file.display()),
        Damaged::Image(digest) => format!("damaged: image {digest}: {why}"),
        Damaged::Layer(digest) => format!("damaged: layer {digest}: {why}"),
    }
}

fn summary(report: &Report) -> String {
    let count = |number: usize, what: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {what}{plural}")
    };
    let counts = format!(
        "{}, {} and {} are as they should be",
        count(report.names, "name"),
        count(report.images, "image"),
        count(report.layers, "layer"),
    );
    match report.unproved {
        0 => format!("{counts}\n"),
        some => {
            format!("{counts}; the contents of {some} layers of an older version are unproved\n")
        }
    }
}
