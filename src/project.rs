//! What a pod is to be by its name: the project's Podfile over the configuration, and
//! that of its workspace over both.
//!
//! Runs in every session, as the user. The administrator's list of projects comes
//! first; a user's own Podfile, `~/.config/podspawn/podfiles/NAME.yaml`, is read
//! where the list has none of this name and users may choose images. One of the two says
//! whether there is a workspace; the Podfile in it comes from inside of pods, and a
//! mistake there keeps nobody out of the pod in which it is to be mended.

use std::path::{Path, PathBuf};

use podspawn_runtime::pod::PodName;

use crate::cli::Place;
use crate::config::{Config, ConfigError, read};
use crate::exit::Failure;
use crate::podfile::{MOST_SERVICES, Podfile, Rules};
use crate::workspace;
use crate::yaml::{Document, Problem, Value, suggest};

/// What is decided about one pod.
#[derive(Debug)]
pub struct Project {
    /// The configuration, with what the Podfile says instead.
    pub config: Config,
    /// The Podfile; an empty one where there is none.
    pub podfile: Podfile,
    /// Why the Podfile in the workspace is left out, in one line.
    pub trouble: Option<String>,
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
        put(&mut config, &podfile, origin);
        let mut project = Self {
            config,
            podfile,
            trouble: None,
        };
        match project.in_workspace(place, name) {
            Ok(None) => {}
            Ok(Some(own)) => {
                put(&mut project.config, &own, Origin::User);
                project.podfile = own.over(project.podfile, name);
            }
            Err(e) => {
                let line = format!("{e}; pods are made without this file until it is put right");
                project.trouble = Some(line);
            }
        }
        Ok(project)
    }

    /// The Podfile in the workspace, where there is one.
    fn in_workspace(&self, place: &Place, name: &PodName) -> Result<Option<Podfile>, ConfigError> {
        let Some(inside) = self.podfile.workspace_of(name) else {
            return Ok(None);
        };
        if !self.podfile.keeps_files() {
            return Ok(None);
        }
        let dir = workspace::path(&place.root, name);
        let rules = Rules {
            local_registries: !place.config.policy.is_open(),
            ..rules(place, Origin::User)
        };
        let found = workspace::podfile(&dir, &inside, &rules)?;
        let services = found
            .iter()
            .chain([&self.podfile])
            .flat_map(|p| &p.services);
        if services.count() > MOST_SERVICES {
            return Err(ConfigError {
                file: inside,
                line: None,
                key: "services".into(),
                text: format!("more than {MOST_SERVICES} with those of the project's Podfile"),
            });
        }
        Ok(found)
    }
}

/// Whose Podfile it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The administrator's, named in the list of projects.
    Administrator,
    /// The user's own, on the host or in the workspace.
    User,
}

/// What a Podfile may say by whose it is.
fn rules(place: &Place, origin: Origin) -> Rules {
    let chosen = |key| place.config.user_settings.contains(&key);
    match origin {
        Origin::Administrator => Rules::ALL,
        Origin::User => Rules {
            host_paths: false,
            images: chosen("defaults.image"),
            local_registries: true,
            mode: chosen("session.mode"),
        },
    }
}

/// Puts what a Podfile says over the configuration.
fn put(config: &mut Config, podfile: &Podfile, origin: Origin) {
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
            let podfile = Podfile::read(&path, &bytes, &rules(place, origin))?;
            return Ok(Some((podfile, origin)));
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
    let podfile = Podfile::read(&own, &bytes, &rules(place, Origin::User))?;
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
