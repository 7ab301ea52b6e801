//! `podfile.yaml`: what a project's pod is made of.
//!
//! Pure: a text is read, checked and understood, or refused in one line with file,
//! line and field. What would need an image to be built is refused, not ignored.
//! Where a Podfile comes from decides what it may say ([`Rules`]): paths of the
//! host are for the administrator's alone, because a user's sessions have no other
//! way to the host's files.

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use podspawn_images::reference::Reference;
use podspawn_runtime::pod::{Mode, PodName};

use crate::config::{self, ConfigError};
use crate::yaml::{Document, Problem, Value, quote, suggest};

pub use service::{MOST_SERVICES, Service, Source};

/// What a Podfile may say, beside what every one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Paths of the host, as volumes.
    pub host_paths: bool,
    /// Images.
    pub images: bool,
    /// Registries that may be of the host's own network.
    pub local_registries: bool,
    /// When the pod ends.
    pub mode: bool,
}

impl Rules {
    /// What the administrator's may say.
    pub const ALL: Self = Self {
        host_paths: true,
        images: true,
        local_registries: true,
        mode: true,
    };
}

/// How the files of a project get into its workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mount {
    /// `none`: they are the pod's own.
    #[default]
    None,
    /// `bind`: they are kept for the next pod of the name.
    Bind,
    /// `copy`: those that are kept, and changes stay in the pod.
    Copy,
}

/// What a Podfile says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Podfile {
    /// `base`: the image.
    pub image: Option<Reference>,
    /// `shell`.
    pub shell: Option<PathBuf>,
    /// `env`.
    pub env: BTreeMap<String, String>,
    /// `workspace`: where sessions begin.
    pub workspace: Option<PathBuf>,
    /// `mount`: whose files are there.
    pub mount: Option<Mount>,
    /// `mode`: when the pod ends.
    pub mode: Option<Mode>,
    /// `resources.cpus`; 0 for no limit.
    pub cpus: Option<f64>,
    /// `resources.memory`, in bytes; 0 for no limit.
    pub memory: Option<u64>,
    /// `services`.
    pub services: Vec<Service>,
}

/// Fields that make an image, or run what it takes one for.
const BUILDING: [&str; 7] = [
    "packages",
    "extra_commands",
    "dotfiles",
    "repos",
    "on_create",
    "on_start",
    "extends",
];

const KNOWN: [&str; 11] = [
    "mode",
    "mount",
    "resources",
    "base",
    "name",
    "shell",
    "env",
    "workspace",
    "services",
    "ports",
    "on_create",
];

impl Podfile {
    /// Reads a Podfile.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(file: &Path, bytes: &[u8], rules: &Rules) -> Result<Self, ConfigError> {
        understand(bytes, rules).map_err(|problem| ConfigError {
            file: file.to_owned(),
            line: Some(problem.line),
            key: problem.key,
            text: problem.text,
        })
    }

    /// The names of the volumes of its services.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let volumes = self.services.iter().flat_map(|service| &service.volumes);
        volumes.filter_map(|volume| match &volume.source {
            Source::Named(name) => Some(name.as_str()),
            Source::Host(_) => None,
        })
    }

    /// Whether there is a workspace whose files outlive the pod.
    #[must_use]
    pub fn keeps_files(&self) -> bool {
        matches!(self.mount, Some(Mount::Bind | Mount::Copy))
    }

    /// Where sessions of the pod `name` begin, if not at home.
    #[must_use]
    pub fn workspace_of(&self, name: &PodName) -> Option<PathBuf> {
        let usual = || Path::new("/workspace").join(name.as_str());
        let kept = self.keeps_files().then(usual);
        self.workspace.clone().or(kept)
    }

    /// This one, from the workspace, laid over the one that says where the workspace is:
    /// field by field, and variables and services by their names. A volume that only this
    /// one names is a volume of the pod `name` alone: it cannot name those of other pods.
    #[must_use]
    pub fn over(self, below: Self, name: &PodName) -> Self {
        let shared: BTreeSet<String> = below.volumes().map(str::to_owned).collect();
        let (mut env, mut services) = (below.env, below.services);
        env.extend(self.env);
        for mut service in self.services {
            for volume in &mut service.volumes {
                if let Source::Named(volume) = &mut volume.source
                    && !shared.contains(volume)
                {
                    // No Podfile can name it like that.
                    *volume = format!("{name}@{volume}");
                }
            }
            match services.iter_mut().find(|s| s.name == service.name) {
                Some(place) => *place = service,
                None => services.push(service),
            }
        }
        Self {
            image: self.image.or(below.image),
            shell: self.shell.or(below.shell),
            env,
            workspace: below.workspace,
            mount: below.mount,
            mode: self.mode.or(below.mode),
            cpus: self.cpus.or(below.cpus),
            memory: self.memory.or(below.memory),
            services,
        }
    }

    /// The environment with what `${PODSPAWN_USER}` and `${PODSPAWN_PROJECT}` stand for.
    #[must_use]
    pub fn expanded(env: &BTreeMap<String, String>, user: &str, project: &str) -> Vec<String> {
        let expand = |value: &str| {
            value
                .replace("${PODSPAWN_USER}", user)
                .replace("${PODSPAWN_PROJECT}", project)
        };
        env.iter()
            .map(|(name, value)| format!("{name}={}", expand(value)))
            .collect()
    }
}

fn understand(bytes: &[u8], rules: &Rules) -> Result<Podfile, Problem> {
    let document = Document::parse(bytes)?;
    let mut podfile = Podfile::default();
    let mut mounted = None;
    for entry in Value::root(&document).entries()? {
        let value = entry.value;
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "base" => podfile.image = image(value, rules).map_err(problem)?,
            "name" => {
                value.parsed(host_name).map_err(problem)?;
            }
            "shell" => podfile.shell = value.absolute_path().map_err(problem)?,
            "workspace" => podfile.workspace = value.absolute_path().map_err(problem)?,
            "env" => podfile.env = variables(value).map_err(problem)?,
            "services" => podfile.services = service::services(value, rules).map_err(problem)?,
            // They say what to publish; here every port is reached through ssh -L.
            "ports" => check_ports(value).map_err(problem)?,
            key if BUILDING.contains(&key) => {
                let text = "needs an image to be built, which this version does not do; \
                            put it into the image that base names";
                return Err(problem(Problem::new(entry.line, text)));
            }
            "mode" if !rules.mode => {
                let text = "the mode is chosen by the administrator; leave it out";
                return Err(problem(Problem::new(entry.line, text)));
            }
            "mode" => podfile.mode = config::mode_of(value).map_err(problem)?,
            "resources" => resources(&mut podfile, value).map_err(problem)?,
            "mount" => {
                podfile.mount = value.one_of(&MOUNTS).map_err(problem)?;
                if podfile.keeps_files() {
                    mounted = Some(entry.line);
                }
            }
            // Which of a repository is meant: nothing is checked out here.
            "branch" => drop(value.text().map_err(problem)?),
            other => {
                let hint = suggest(other, KNOWN.into_iter());
                return Err(problem(Problem::new(
                    entry.line,
                    format!("unknown field{hint}"),
                )));
            }
        }
    }
    let is_root = |dir: &PathBuf| dir.file_name().is_none();
    if let (Some(line), true) = (mounted, podfile.workspace.as_ref().is_some_and(is_root)) {
        let text = "needs a workspace of its own, not /; leave workspace out or name another";
        return Err(Problem::new(line, text).below("mount"));
    }
    Ok(podfile)
}

fn resources(podfile: &mut Podfile, value: Value<'_>) -> Result<(), Problem> {
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "cpus" => podfile.cpus = config::cpus_of(entry.value).map_err(problem)?,
            "memory" => podfile.memory = config::memory_of(entry.value).map_err(problem)?,
            other => {
                let hint = suggest(other, ["cpus", "memory"].into_iter());
                let text = format!("unknown field{hint}");
                return Err(problem(Problem::new(entry.line, text)));
            }
        }
    }
    Ok(())
}

const MOUNTS: [(&str, Mount); 3] = [
    ("none", Mount::None),
    ("bind", Mount::Bind),
    ("copy", Mount::Copy),
];

fn image(value: Value<'_>, rules: &Rules) -> Result<Option<Reference>, Problem> {
    let Some(image) = value.parsed(reference)? else {
        return Ok(None);
    };
    if !rules.images {
        return Err(value.problem("images are chosen by the administrator; leave it out"));
    }
    let registry = image.registry();
    if !rules.local_registries && may_be_local(registry) {
        return Err(value.problem(format!(
            "{} may be of the host's own network, of which only a Podfile of the administrator's \
             or your own on the host can name registries",
            quote(registry)
        )));
    }
    Ok(Some(image))
}

/// Whether a registry is named by an address, or by a name that the host alone knows. What
/// ends in letters after a dot is no address in any notation.
fn may_be_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_end_matches('.');
    let last = host.rsplit_once('.').map(|(_, last)| last);
    !last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()))
        || host.ends_with(".localhost")
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|e| format!("{e}"))
}

/// A label as in RFC 1123, that no other line of `/etc/hosts` has.
fn host_name(text: &str) -> Result<String, String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=63).contains(&text.len())
        && text.starts_with(letters)
        && text.ends_with(letters)
        && text.chars().all(|c| letters(c) || c == '-');
    if !fits || text == "localhost" {
        return Err(format!(
            "{} cannot be a host name; use a-z, 0-9 and - inside, at most 63",
            quote(text)
        ));
    }
    Ok(text.to_owned())
}

fn variables(value: Value<'_>) -> Result<BTreeMap<String, String>, Problem> {
    let mut all = BTreeMap::new();
    for entry in value.entries()? {
        let sound = entry
            .key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !entry.key.is_empty()
            && !entry.key.starts_with(|c: char| c.is_ascii_digit());
        if !sound {
            let text = "not the name of a variable; use letters, digits and _";
            return Err(Problem::new(entry.line, text).below(entry.key));
        }
        let text = entry.value.text().map_err(|p| p.below(entry.key))?;
        let text = text.unwrap_or_default();
        if text.contains('\0') {
            return Err(entry
                .value
                .problem("a value cannot hold a NUL")
                .below(entry.key));
        }
        all.insert(entry.key.to_owned(), text.to_owned());
    }
    Ok(all)
}

fn check_ports(value: Value<'_>) -> Result<(), Problem> {
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "expose" => drop(service::port_list(entry.value).map_err(problem)?),
            "strategy" => {
                let known = [("auto", ()), ("manual", ()), ("expose", ())];
                entry.value.one_of(&known).map_err(problem)?;
            }
            other => {
                let hint = suggest(other, ["expose", "strategy"].into_iter());
                let text = format!("unknown field{hint}");
                return Err(problem(Problem::new(entry.line, text)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
