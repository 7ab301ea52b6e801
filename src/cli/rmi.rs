//! `podspawn rmi`: takes names from images, and images that have none left from
//! the user's store.

use std::path::Path;

use podspawn_images::reference::Reference;
use podspawn_images::store::{Removed, StoreError};

use super::{Place, namespace};
use crate::exit::{Exit, Failure, chain};
use crate::output;

/// Arguments of `podspawn rmi`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The images, by the names that podspawn images shows
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<Reference>,
}

/// Removes one after the other; one that cannot be removed does not keep the
/// others.
///
/// # Errors
///
/// When the store cannot be opened. What is wrong with a single reference is
/// said, and shows in the exit status.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let Some(store) = namespace::open_existing(&place)? else {
        return Err(StoreError::NoSuchImage(args.references[0].to_string()).into());
    };
    let mut exit = Exit::Success;
    for reference in &args.references {
        match store.remove(reference) {
            Ok(removed) => {
                output::answer(&said(&removed))?;
                for notice in notices(&removed) {
                    output::notice(&notice);
                }
            }
            Err(error) => {
                output::failure(&chain(&error));
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

/// What is gone, a line each.
fn said(removed: &Removed) -> String {
    let names = removed
        .untagged
        .iter()
        .map(|name| format!("untagged {name}\n"));
    let images = removed
        .images
        .iter()
        .map(|digest| format!("deleted {digest}\n"));
    names.chain(images).collect()
}

/// What is still there although it was to go.
fn notices(removed: &Removed) -> Vec<String> {
    let used = removed.in_use.iter();
    let mut notices: Vec<String> = used
        .map(|digest| format!("{digest} is in use and stays until it is not"))
        .collect();
    if removed.deferred {
        notices.push("a pull is running, so layers stay for now".into());
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_what_stays_are_told_apart() {
        let digest: podspawn_images::digest::Digest =
            format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let removed = Removed {
            untagged: vec!["x:1".parse().unwrap()],
            images: vec![digest.clone()],
            in_use: vec![digest.clone()],
            deferred: true,
            ..Removed::default()
        };
        assert_eq!(
            said(&removed),
            format!("untagged docker.io/library/x:1\ndeleted {digest}\n")
        );
        assert_eq!(notices(&removed).len(), 2);
        assert!(notices(&Removed::default()).is_empty());
    }
}
