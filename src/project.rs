//! What a pod is to be by its name: the project's Podfile, over the configuration.
//!
//! Runs in every session, as the user. The administrator's list of projects comes
//! first; a user's own Podfile, `~/.config/podspawn/podfiles/NAME.yaml`, is read
//! where the list has none of this name and users may choose images.

use std::path::{Path, PathBuf};

use podspawn_runtime::pod::PodName;

use crate::cli::Place;
use crate::config::{Config, ConfigError, read};
use crate::exit::Failure;
use crate::podfile::{Origin, Podfile};
use crate::yaml::{Document, Problem, Value, suggest};

/// What is decided about one pod.
#[derive(Debug)]
pub struct Project {
    /// The configuration, with what the Podfile says instead.
    pub config: Config,
    /// The Podfile; an empty one where there is none.
    pub podfile: Podfile,
}

impl Project {
    /// Of the pod `name`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, is not to be trusted, or says something wrong.
    pub fn of(place: &Place, name: &PodName) -> Result<Self, Failure> {
        let mut config = place.config.clone();
        let (podfile, origin) =
            find(place, name)?.unwrap_or_else(|| (Podfile::default(), Origin::User));
        if let Some(image) = &podfile.image {
            config.image = image.clone();
        }
        if let Some(shell) = &podfile.shell {
            config.shell.clone_from(shell);
        }
        if let Some(mode) = podfile.mode {
            config.mode = mode;
        }
        if let Some(cpus) = podfile.cpus {
            config.cpus = allowed(config.cpus, cpus, origin);
        }
        if let Some(memory) = podfile.memory {
            config.memory = allowed(config.memory, memory, origin);
        }
        Ok(Self { config, podfile })
    }
}

/// The limit that a Podfile wants: a user's own only takes less than `most`. 0 is no limit.
fn allowed<T: PartialOrd + Default>(most: T, wanted: T, origin: Origin) -> T {
    let none = T::default();
    let more = wanted > most || wanted == none;
    match origin {
        Origin::User if most > none && more => most,
        Origin::User | Origin::Administrator => wanted,
    }
}

fn find(place: &Place, name: &PodName) -> Result<Option<(Podfile, Origin)>, ConfigError> {
    let locations = &place.locations;
    let list = place.config.projects_file.clone().unwrap_or_else(|| {
        let beside = locations.server.parent().unwrap_or(Path::new("/"));
        beside.join("projects.yaml")
    });
    if let Some(bytes) = read::beside(locations, &list, false, &place.account)? {
        let listed = podfile_of(&bytes, name.as_str()).map_err(|problem| ConfigError {
            file: list.clone(),
            line: Some(problem.line),
            key: problem.key,
            text: problem.text,
        })?;
        if let Some(path) = listed {
            let bytes = read::beside(locations, &path, false, &place.account)?;
            let bytes = bytes.ok_or_else(|| ConfigError {
                file: list,
                line: None,
                key: format!("{name}.podfile"),
                text: format!("there is no file {}", path.display()),
            })?;
            let origin = Origin::Administrator;
            return Podfile::read(&path, &bytes, origin).map(|podfile| Some((podfile, origin)));
        }
    }
    let own = place.directories.config.join("podspawn/podfiles");
    let own = own.join(format!("{name}.yaml"));
    let Some(bytes) = read::beside(locations, &own, true, &place.account)? else {
        return Ok(None);
    };
    if !place.config.user_settings.contains(&"defaults.image") {
        return Err(ConfigError {
            file: own,
            line: None,
            key: String::new(),
            text: "images are chosen by the administrator; remove this file".into(),
        });
    }
    let podfile = Podfile::read(&own, &bytes, Origin::User)?;
    if podfile.mode.is_some() && !place.config.user_settings.contains(&"session.mode") {
        return Err(ConfigError {
            file: own,
            line: None,
            key: "mode".into(),
            text: "the mode is chosen by the administrator; leave it out".into(),
        });
    }
    Ok(Some((podfile, Origin::User)))
}

/// The Podfile that the list of projects names for `wanted`. Pure.
fn podfile_of(bytes: &[u8], wanted: &str) -> Result<Option<PathBuf>, Problem> {
    let document = Document::parse(bytes)?;
    let mut found = None;
    for project in Value::root(&document).entries()? {
        let below = |p: Problem| p.below(project.key);
        for entry in project.value.entries().map_err(below)? {
            let problem = |p: Problem| p.below(entry.key).below(project.key);
            match entry.key {
                "podfile" => {
                    let path = entry.value.absolute_path().map_err(problem)?;
                    if project.key == wanted {
                        found = path;
                    }
                }
                // What add-project notes; nothing is cloned yet.
                "repo" | "branch" => drop(entry.value.text().map_err(problem)?),
                other => {
                    let hint = suggest(other, ["podfile", "repo", "branch"].into_iter());
                    let text = format!("unknown key{hint}");
                    return Err(problem(Problem::new(entry.line, text)));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_podfile_takes_less_and_not_more() {
        let (user, administrator) = (Origin::User, Origin::Administrator);
        assert_eq!(allowed(2.0, 1.0, user), 1.0);
        assert_eq!(allowed(2.0, 4.0, user), 2.0);
        assert_eq!(allowed(2.0, 0.0, user), 2.0);
        assert_eq!(allowed(0.0, 4.0, user), 4.0);
        assert_eq!(allowed(2.0, 4.0, administrator), 4.0);
        assert_eq!(allowed(2.0, 0.0, administrator), 0.0);
    }

    #[test]
    fn the_list_names_podfiles() {
        let list = b"web:\n  repo: https://git.example/web\n  podfile: /etc/podspawn/web.yaml\napi: {podfile: /etc/podspawn/api.yaml}\n";
        let of = |name| podfile_of(list, name).unwrap();
        assert_eq!(of("api"), Some("/etc/podspawn/api.yaml".into()));
        assert_eq!(of("web"), Some("/etc/podspawn/web.yaml".into()));
        assert_eq!(of("other"), None);
    }

    #[test]
    fn a_mistake_in_the_list_is_named() {
        let problem = podfile_of(b"web:\n  podfle: /x\n", "web").unwrap_err();
        assert_eq!((problem.line, problem.key.as_str()), (2, "web.podfle"));
        assert_eq!(problem.text, "unknown key; did you mean podfile?");
        let problem = podfile_of(b"web: {podfile: x}\n", "other").unwrap_err();
        assert_eq!(problem.key, "web.podfile");
    }
}
