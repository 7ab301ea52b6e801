//! Every key, once: its name, its type, what it sets and who may set it.
//!
//! Pure. [`KEYS`] is what the reader, the suggestions for a mistyped key, the
//! check of `user_settings` and the list of keys without effect all go by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use podspawn_images::limits::Limits;
use podspawn_images::reference::Reference;

use super::value::Value;
use super::yaml::Problem;
use super::{Config, Network, PodUser, StorageRoot, quote, units};

/// Who may give a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// `config.yaml` alone: it concerns the host.
    Host,
    /// The administrator, for everybody or for one user.
    Administrator,
    /// A user too, where `user_settings` names the key.
    User,
}

/// Why a key that is understood changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutEffect {
    /// This version does not act on it.
    NotYet,
    /// It speaks about Docker or a state database, and podspawn has neither.
    NoMeaning,
}

/// A key of the configuration.
pub(super) struct Key {
    /// Sections and name, with dots.
    pub(super) name: &'static str,
    pub(super) reach: Reach,
    pub(super) without_effect: Option<WithoutEffect>,
    /// Checks the value and puts it into the configuration.
    pub(super) set: Set,
}

type Set = fn(&mut Config, Value<'_>) -> Result<(), Problem>;

const fn key(name: &'static str, reach: Reach, set: Set) -> Key {
    Key {
        name,
        reach,
        without_effect: None,
        set,
    }
}

const fn later(name: &'static str, reach: Reach, set: Set) -> Key {
    Key {
        name,
        reach,
        without_effect: Some(WithoutEffect::NotYet),
        set,
    }
}

const fn never(name: &'static str, set: Set) -> Key {
    Key {
        name,
        reach: Reach::Host,
        without_effect: Some(WithoutEffect::NoMeaning),
        set,
    }
}

use Reach::{Administrator, Host, User};

/// All keys of `config.yaml` and, by their reach, of the per-user files.
pub(super) const KEYS: &[Key] = &[
    key("defaults.image", User, |c, v| {
        put(&mut c.image, v.parsed(reference)?)
    }),
    key("defaults.shell", User, |c, v| {
        put(&mut c.shell, v.absolute_path()?)
    }),
    later("defaults.cpus", User, |_, v| ok(v.parsed(cpus)?)),
    later("defaults.memory", User, |_, v| ok(v.parsed(units::size)?)),
    key("session.mode", User, mode),
    key("session.grace_period", User, |c, v| {
        put(&mut c.grace_period, v.parsed(units::duration)?)
    }),
    later("session.max_lifetime", Administrator, |_, v| {
        ok(v.parsed(units::duration)?)
    }),
    key("storage.root", Administrator, |c, v| {
        let root = v
            .absolute_path()?
            .map(|_| v.parsed(StorageRoot::parse))
            .transpose()?
            .flatten();
        put(&mut c.storage_root, root.map(Some))
    }),
    key("registries", Administrator, registries),
    key("images.max_layer_size", Administrator, |c, v| {
        put(&mut c.limits.expanded, v.parsed(units::size)?)
    }),
    key("images.max_layer_entries", Administrator, |c, v| {
        put(&mut c.limits.entries, v.whole(1)?)
    }),
    key("images.max_layers", Administrator, |c, v| {
        let most = Limits::default().layers;
        let layers = v
            .whole(1)?
            .map(|n| usize::try_from(n).ok().filter(|n| *n <= most));
        match layers {
            Some(None) => Err(v.problem(format!("at most {most} layers can be mounted"))),
            layers => put(&mut c.limits.layers, layers.flatten()),
        }
    }),
    key("user", User, |c, v| {
        let known = [
            ("self", PodUser::Login),
            ("image", PodUser::Image),
            ("root", PodUser::Root),
        ];
        put(&mut c.user, v.one_of(&known)?)
    }),
    key("network", User, |c, v| {
        match v.one_of(&[("none", true), ("pasta", false)])? {
            Some(false) => Err(v.problem("\"pasta\" is not available yet; write none")),
            given => put(&mut c.network, given.map(|_| Network::None)),
        }
    }),
    key("user_settings", Administrator, user_settings),
    later("auth.key_dir", Host, |_, v| ok(v.absolute_path()?)),
    later("log.file", Host, |_, v| ok(v.absolute_path()?)),
    later("log.audit_log", Host, |_, v| ok(v.absolute_path()?)),
    later("security.cap_drop", Administrator, |_, v| ok(v.texts()?)),
    later("security.cap_add", Administrator, |_, v| ok(v.texts()?)),
    later("security.no_new_privileges", Administrator, |_, v| {
        ok(v.flag()?)
    }),
    later("security.pids_limit", Administrator, |_, v| ok(v.whole(0)?)),
    later("security.readonly_rootfs", Administrator, |_, v| {
        ok(v.flag()?)
    }),
    later("security.tmpfs", Administrator, |_, v| texts_by_name(v)),
    never("security.runtime", |_, v| ok(v.text()?)),
    later("resources.max_per_user", Administrator, |_, v| {
        ok(v.whole(0)?)
    }),
    later("projects_file", Host, |_, v| ok(v.absolute_path()?)),
    later("state.homes_dir", Host, |_, v| ok(v.absolute_path()?)),
    never("state.db_path", |_, v| ok(v.text()?)),
    never("state.lock_dir", |_, v| ok(v.text()?)),
];

/// The short names of upstream's per-user files, and the keys they stand for.
pub(super) const SHORT: &[(&str, &str)] = &[
    ("image", "defaults.image"),
    ("shell", "defaults.shell"),
    ("cpus", "defaults.cpus"),
    ("memory", "defaults.memory"),
    ("mode", "session.mode"),
];

/// What only the administrator's per-user files have.
pub(super) const PER_USER: &[Key] = &[
    later("env", Administrator, |_, v| texts_by_name(v)),
    later("dotfiles.repo", Administrator, |_, v| ok(v.text()?)),
    later("dotfiles.install", Administrator, |_, v| ok(v.text()?)),
];

fn put<T>(place: &mut T, value: Option<T>) -> Result<(), Problem> {
    if let Some(value) = value {
        *place = value;
    }
    Ok(())
}

/// A value that is only checked.
fn ok<T>(_: T) -> Result<(), Problem> {
    Ok(())
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn cpus(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|n| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| format!("{} is not a number of processors such as 2.0", quote(text)))
}

/// The other modes end pods, or keep what is in them, in ways that a user would
/// miss: better said at once than found out.
fn mode(_: &mut Config, value: Value<'_>) -> Result<(), Problem> {
    let known = [
        ("grace-period", true),
        ("destroy-on-disconnect", false),
        ("persistent", false),
    ];
    match value.one_of(&known)? {
        Some(false) => {
            let text = value.text()?.unwrap_or_default();
            Err(value.problem(format!(
                "{} is not available yet; write grace-period",
                quote(text)
            )))
        }
        _ => Ok(()),
    }
}

fn texts_by_name(value: Value<'_>) -> Result<(), Problem> {
    for entry in value.entries()? {
        entry.value.text().map_err(|p| p.below(entry.key))?;
    }
    Ok(())
}

fn user_settings(config: &mut Config, value: Value<'_>) -> Result<(), Problem> {
    let mut names = Vec::new();
    for item in value.list()? {
        let Some(text) = item.text()? else { continue };
        let Some(key) = KEYS.iter().find(|k| k.name == text) else {
            let known = KEYS.iter().filter(|k| k.reach == User).map(|k| k.name);
            let hint = super::suggest(text, known);
            return Err(item.problem(format!("{} is no key{hint}", quote(text))));
        };
        if key.reach != User {
            return Err(item.problem(format!("{} cannot be left to users", key.name)));
        }
        names.push(key.name);
    }
    config.user_settings = names;
    Ok(())
}

/// `HOST: {insecure, mirrors}`, and `certs`, which no host can be called: a
/// registry's name in a reference has a dot or a port, or is `localhost`.
fn registries(config: &mut Config, value: Value<'_>) -> Result<(), Problem> {
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        if entry.key == "certs" {
            let dir = entry.value.absolute_path().map_err(problem)?;
            put(&mut config.registries.certs, dir.map(Some))?;
            continue;
        }
        let Some(host) = registry_host(entry.key) else {
            let text = "not a registry's name; write HOST or HOST:PORT as in a reference";
            return Err(problem(Problem::new(entry.line, text)));
        };
        let registry = registry(entry.value).map_err(problem)?;
        config.registries.hosts.insert(host, registry);
    }
    Ok(())
}

fn registry(value: Value<'_>) -> Result<Registry, Problem> {
    let mut host = Registry::default();
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "insecure" => put(&mut host.insecure, entry.value.flag().map_err(problem)?)?,
            "mirrors" => {
                for item in entry.value.list().map_err(problem)? {
                    let mirror = item.parsed(mirror).map_err(problem)?;
                    host.mirrors.extend(mirror);
                }
            }
            other => {
                let hint = super::suggest(other, ["insecure", "mirrors"].into_iter());
                return Err(problem(Problem::new(
                    entry.line,
                    format!("unknown key{hint}"),
                )));
            }
        }
    }
    Ok(host)
}

/// The registry that a reference beginning with `host/` names.
fn registry_host(host: &str) -> Option<String> {
    let reference: Reference = format!("{host}/x").parse().ok()?;
    let registry = reference.registry();
    // Else the text was taken for the first part of a repository.
    (host.contains(['.', ':']) || host == "localhost").then(|| registry.to_owned())
}

fn mirror(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.split('/').next().unwrap_or_default();
    let sound = registry_host(host).is_some()
        && format!("{trimmed}/x")
            .parse::<Reference>()
            .is_ok_and(|r| r.digest().is_none());
    if sound {
        Ok(trimmed.to_owned())
    } else {
        Err(format!(
            "{} is not a mirror; write HOST, HOST:PORT or HOST/PREFIX",
            quote(text)
        ))
    }
}

/// What the configuration says about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// By the name in references.
    pub hosts: BTreeMap<String, Registry>,
    /// A directory in the `certs.d` layout, looked at before the usual ones.
    pub certs: Option<PathBuf>,
}

/// What is particular about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Certificates are not verified, and plain HTTP will do.
    pub insecure: bool,
    /// Asked first, in this order: `HOST[:PORT][/PREFIX]`.
    pub mirrors: Vec<String>,
}
