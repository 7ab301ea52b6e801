//! The configuration: what the administrator and the user decided.
//!
//! Runs at the start of every verb, as the user and outside of any namespace.
//! Three files, each over what the ones before said:
//!
//! 1. `/etc/podspawn/config.yaml`, for everybody;
//! 2. `/etc/podspawn/users/NAME.yaml`, the administrator's for one user: the
//!    same keys, and upstream's short names for some (`image`, `shell`, …);
//! 3. `~/.config/podspawn/config.yaml`, the user's own, for the keys that
//!    `user_settings` in the first two names.
//!
//! Reading ([`read`]) and understanding ([`Config::apply`], pure) are apart.
//! What holds true of a [`Config`]: every value has been checked, an unknown or
//! doubled key was refused, and a key that has no effect is listed in
//! [`Config::unused`].

pub mod read;
mod schema;
mod security;
mod set;
pub mod units;
mod user_path;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podspawn_images::limits::Limits;
use podspawn_images::policy::Policy;
use podspawn_images::reference::Reference;
use podspawn_runtime::pod::Mode;

pub use read::{Locations, load, load_server};
pub use schema::{KEYS, Key, PER_USER, Reach, Registries, Registry, SHORT, WithoutEffect};
pub use security::Confinement;
pub(crate) use set::{cpus_of, memory_of, mode_of};
pub use user_path::UserPath;

use crate::output::text;
use crate::yaml::{self, Document, Entry, Problem, Value, quote, shorten, suggest, value};

/// Everything that can be decided, with the defaults where nothing was.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `defaults.image`: the image of a new pod.
    pub image: Reference,
    /// `defaults.shell`: the shell of an interactive session, an absolute path.
    pub shell: PathBuf,
    /// `session.grace_period`: how long a pod outlives its last session.
    pub grace_period: Duration,
    /// `session.mode`: when a pod ends.
    pub mode: Mode,
    /// `session.max_lifetime`: how long a pod may live; not in mode persistent.
    pub max_lifetime: Option<Duration>,
    /// `home`; what is usual for the mode if nothing is said.
    pub home: Option<Home>,
    /// `storage.keep_root`: whether what is written to the root outlives the pod.
    pub keep_root: bool,
    /// `state.homes_dir`: where persistent homes are, if not in the store.
    pub homes_dir: Option<PathBuf>,
    /// `defaults.cpus`; 0: no limit.
    pub cpus: f64,
    /// `defaults.memory`, in bytes; 0: no limit.
    pub memory: u64,
    /// `security.pids_limit`; 0: no limit.
    pub pids_limit: u64,
    /// `resources.max_per_user`: pods at once; 0: no limit.
    pub max_per_user: u64,
    /// `storage.root`, if it is not the user's data directory.
    pub storage_root: Option<UserPath>,
    /// `storage.system_cache`: blobs that all users of the host share, if any.
    pub system_cache: Option<PathBuf>,
    /// `log.file`, if it is not the journal.
    pub log: Option<UserPath>,
    /// `log.audit_log`, if it is not the journal.
    pub audit_log: Option<UserPath>,
    /// `registries`.
    pub registries: Registries,
    /// `images.allow`: which images may be used.
    pub policy: Policy,
    /// The defaults of the image library, with `images.max_…`.
    pub limits: Limits,
    /// `user`: who a session is inside.
    pub user: PodUser,
    /// `network`: what a pod can reach.
    pub network: Network,
    /// `auth.key_dir`: where the public keys of container users are, an absolute path.
    pub key_dir: PathBuf,
    /// `projects_file`, if it is not beside the configuration.
    pub projects_file: Option<PathBuf>,
    /// `user_settings`: the keys that a user's own file may have.
    pub user_settings: Vec<&'static str>,
    /// `security`: how pods are confined.
    pub security: Confinement,
    unused: Vec<Unused>,
}

/// Who a session is inside of the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodUser {
    /// `self`: the user who logged in.
    #[default]
    Login,
    /// `image`: the user that the image names.
    Image,
    /// `root`.
    Root,
}

/// What the session user's home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Part of the pod.
    Ephemeral,
    /// Kept for the next pod of that name.
    Persistent,
    /// The user's own on the host.
    Host,
}

/// What a pod can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// `pasta`: what the host reaches, but not the host itself.
    #[default]
    Pasta,
    /// `none`: its own loopback.
    None,
}

/// A key that is given, understood, and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: usize,
    /// The key with its sections, with dots.
    pub key: String,
    /// Why.
    pub why: WithoutEffect,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The administrator's for everybody.
    Server,
    /// The administrator's for one user.
    PerUser,
    /// The user's own.
    Own,
}

/// What is wrong with which file, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, if it is about the content.
    pub line: Option<usize>,
    /// The key with its sections, with dots; empty if it is about no key.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            // Anything may be quoted as a key.
            write!(f, " {}:", text::escape(&self.key))?;
        }
        write!(f, " {}", self.text)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Self {
        let Ok(image) = "ubuntu:24.04".parse() else {
            unreachable!("a reference")
        };
        Self {
            image,
            shell: "/bin/bash".into(),
            grace_period: Duration::from_secs(60),
            mode: Mode::default(),
            max_lifetime: Some(Duration::from_secs(8 * 60 * 60)),
            home: None,
            keep_root: false,
            homes_dir: None,
            cpus: 2.0,
            memory: 2 << 30,
            pids_limit: 256,
            max_per_user: 3,
            storage_root: None,
            system_cache: Some("/var/cache/podspawn".into()),
            log: None,
            audit_log: None,
            registries: Registries::default(),
            policy: Policy::default(),
            limits: Limits::default(),
            user: PodUser::default(),
            network: Network::default(),
            key_dir: "/etc/podspawn/keys".into(),
            projects_file: None,
            user_settings: vec!["defaults.image", "defaults.shell", "session.grace_period"],
            security: Confinement::default(),
            unused: Vec::new(),
        }
    }
}

impl Config {
    /// Puts what a file says over what is decided so far.
    ///
    /// # Errors
    ///
    /// The first thing wrong with the text. What is decided then is undefined.
    pub fn apply(&mut self, file: &Path, bytes: &[u8], source: Source) -> Result<(), ConfigError> {
        let mut reading = Reading {
            config: self,
            file,
            source,
            given: BTreeMap::new(),
        };
        reading.document(bytes).map_err(|problem| ConfigError {
            file: file.to_owned(),
            line: Some(problem.line),
            key: problem.key,
            text: problem.text,
        })
    }

    /// The keys that are given but change nothing, in the order of the files.
    #[must_use]
    pub fn unused(&self) -> &[Unused] {
        &self.unused
    }
}

/// One file being put over a configuration.
struct Reading<'a> {
    config: &'a mut Config,
    file: &'a Path,
    source: Source,
    /// Keys by the name they have in [`KEYS`], with their line: a short name and
    /// its long one are the same key.
    given: BTreeMap<&'static str, usize>,
}

impl Reading<'_> {
    fn document(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let document = Document::parse(bytes)?;
        self.section(Value::root(&document), "")
    }

    fn section(&mut self, section: Value<'_>, prefix: &str) -> Result<(), Problem> {
        for Entry { key, line, value } in section.entries()? {
            let below = |problem: Problem| problem.below(key);
            let path = if prefix.is_empty() {
                key.to_owned()
            } else {
                format!("{prefix}.{key}")
            };
            if key.contains('.') {
                let text = format!(
                    "write the sections on lines of their own, {:?} first",
                    first(key)
                );
                return Err(below(Problem::new(line, text)));
            }
            if let Some(known) = self.find(&path) {
                self.key(known, line, value).map_err(below)?;
            } else if self.keys().any(|k| is_section_of(&path, k.name)) {
                self.section(value, &path).map_err(below)?;
            } else {
                let hint = suggest(&path, self.names());
                return Err(below(Problem::new(line, format!("unknown key{hint}"))));
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &'static Key, line: usize, value: Value<'_>) -> Result<(), Problem> {
        let reach = match self.source {
            Source::Server => Reach::Host,
            Source::PerUser => Reach::Administrator,
            Source::Own => Reach::User,
        };
        if self.source == Source::Own && !self.config.user_settings.contains(&key.name) {
            let yours = match self.config.user_settings.as_slice() {
                [] => "nothing is left to users".to_owned(),
                keys => format!("left to users: {}", keys.join(", ")),
            };
            return Err(Problem::new(
                line,
                format!("set by the administrator; {yours}"),
            ));
        }
        if key.reach < reach {
            return Err(Problem::new(
                line,
                "concerns the whole host; set it in config.yaml",
            ));
        }
        if let Some(first) = self.given.insert(key.name, line) {
            let text = format!("given twice, first on line {first}");
            return Err(Problem::new(line, text));
        }
        if let Some(why) = key.without_effect {
            let file = self.file.to_owned();
            self.config.unused.push(Unused {
                file,
                line,
                key: key.name.to_owned(),
                why,
            });
        }
        (key.set)(self.config, value)
    }

    fn find(&self, path: &str) -> Option<&'static Key> {
        let short = SHORT
            .iter()
            .find(|(name, _)| *name == path && self.has_short_names());
        let name = short.map_or(path, |(_, long)| *long);
        self.keys().find(|k| k.name == name)
    }

    fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        KEYS.iter().chain(if self.has_short_names() {
            PER_USER
        } else {
            &[]
        })
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let short = if self.has_short_names() { SHORT } else { &[] };
        let section = |k: &'static Key| k.name.split_once('.').map(|(section, _)| section);
        let sections = self.keys().filter_map(section);
        self.keys()
            .map(|k| k.name)
            .chain(short.iter().map(|(name, _)| *name))
            .chain(sections)
    }

    fn has_short_names(&self) -> bool {
        self.source == Source::PerUser
    }
}

fn first(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

fn is_section_of(path: &str, key: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Sets what was given, and leaves what was not.
fn put<T>(place: &mut T, value: Option<T>) -> Result<(), Problem> {
    if let Some(value) = value {
        *place = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
