//! What each key does with its value: checks it and puts it into the
//! configuration. Pure.

use std::time::Duration;

use podspawn_images::limits::Limits;
use podspawn_images::policy::{Pattern, Policy};
use podspawn_images::reference::Reference;
use podspawn_runtime::pod::Mode;

use super::schema::{KEYS, Reach};
use super::value::Value;
use super::yaml::Problem;
use super::{Config, Home, Network, PodUser, Registry, UserPath, put, quote, units};

type Outcome = Result<(), Problem>;

pub(super) fn image(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.image, value.parsed(reference)?)
}

pub(super) fn shell(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.shell, value.absolute_path()?)
}

pub(super) fn grace_period(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.grace_period, value.parsed(units::duration)?)
}

pub(super) fn key_dir(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.key_dir, value.absolute_path()?)
}

pub(super) fn storage_root(config: &mut Config, value: Value<'_>) -> Outcome {
    if value.absolute_path()?.is_some() {
        config.storage_root = value.parsed(UserPath::parse)?;
    }
    Ok(())
}

pub(super) fn log(config: &mut Config, value: Value<'_>) -> Outcome {
    if value.absolute_path()?.is_some() {
        config.log = value.parsed(UserPath::parse)?;
    }
    Ok(())
}

pub(super) fn audit_log(config: &mut Config, value: Value<'_>) -> Outcome {
    if value.absolute_path()?.is_some() {
        config.audit_log = value.parsed(UserPath::parse)?;
    }
    Ok(())
}

pub(super) fn system_cache(config: &mut Config, value: Value<'_>) -> Outcome {
    if value.text()? == Some("none") {
        config.system_cache = None;
        return Ok(());
    }
    put(&mut config.system_cache, value.absolute_path()?.map(Some))
}

pub(super) fn allow(config: &mut Config, value: Value<'_>) -> Outcome {
    // A null says nothing; only an empty list says that nothing is allowed.
    if matches!(value.text(), Ok(None)) {
        return Ok(());
    }
    let mut patterns: Vec<Pattern> = Vec::new();
    for item in value.list()? {
        let read = |text: &str| text.parse().map_err(|e| format!("{e}"));
        let pattern = item.parsed(read)?;
        patterns.push(pattern.ok_or_else(|| item.problem("an entry of the list is empty"))?);
    }
    config.policy = Policy::only(patterns);
    Ok(())
}

pub(super) fn max_image_size(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.limits.image, value.parsed(units::size)?)
}

pub(super) fn max_layer_size(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.limits.expanded, value.parsed(units::size)?)
}

pub(super) fn max_layer_entries(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.limits.entries, value.whole(1)?)
}

pub(super) fn max_layers(config: &mut Config, value: Value<'_>) -> Outcome {
    let most = Limits::default().layers;
    let Some(layers) = value.whole(1)? else {
        return Ok(());
    };
    match usize::try_from(layers) {
        Ok(layers) if layers <= most => put(&mut config.limits.layers, Some(layers)),
        _ => Err(value.problem(format!("at most {most} layers can be mounted"))),
    }
}

pub(super) fn user(config: &mut Config, value: Value<'_>) -> Outcome {
    let known = [
        ("self", PodUser::Login),
        ("image", PodUser::Image),
        ("root", PodUser::Root),
    ];
    put(&mut config.user, value.one_of(&known)?)
}

pub(super) fn network(config: &mut Config, value: Value<'_>) -> Outcome {
    let known = [("pasta", Network::Pasta), ("none", Network::None)];
    put(&mut config.network, value.one_of(&known)?)
}

pub(super) fn projects_file(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.projects_file, value.absolute_path()?.map(Some))
}

pub(super) fn any_text(_: &mut Config, value: Value<'_>) -> Outcome {
    value.text().map(drop)
}

pub(super) fn any_texts_by_name(_: &mut Config, value: Value<'_>) -> Outcome {
    for entry in value.entries()? {
        entry.value.text().map_err(|p| p.below(entry.key))?;
    }
    Ok(())
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn processors(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|n| n.is_finite() && *n >= 0.0);
    number.ok_or_else(|| format!("{} is not a number of processors such as 2.0", quote(text)))
}

pub(super) fn mode(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.mode, mode_of(value)?)
}

/// A mode by its name.
pub(crate) fn mode_of(value: Value<'_>) -> Result<Option<Mode>, Problem> {
    let known = [
        Mode::GracePeriod,
        Mode::DestroyOnDisconnect,
        Mode::Persistent,
    ]
    .map(|mode| (mode.to_string(), mode));
    let known = known.each_ref().map(|(word, mode)| (word.as_str(), *mode));
    value.one_of(&known)
}

pub(super) fn max_lifetime(config: &mut Config, value: Value<'_>) -> Outcome {
    let given = value.parsed(units::duration)?;
    put(&mut config.max_lifetime, given.map(some_duration))
}

fn some_duration(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|d| !d.is_zero())
}

pub(super) fn home(config: &mut Config, value: Value<'_>) -> Outcome {
    let known = [
        ("ephemeral", Home::Ephemeral),
        ("persistent", Home::Persistent),
        ("host", Home::Host),
    ];
    put(&mut config.home, value.one_of(&known)?.map(Some))
}

pub(super) fn keep_root(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.keep_root, value.flag()?)
}

pub(super) fn homes_dir(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.homes_dir, value.absolute_path()?.map(Some))
}

pub(super) fn cpus(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.cpus, cpus_of(value)?)
}

/// A number of processors; 0 for no limit.
pub(crate) fn cpus_of(value: Value<'_>) -> Result<Option<f64>, Problem> {
    value.parsed(processors)
}

pub(super) fn memory(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.memory, memory_of(value)?)
}

/// An amount of memory; 0 for no limit.
pub(crate) fn memory_of(value: Value<'_>) -> Result<Option<u64>, Problem> {
    value.parsed(|text| match text {
        "0" => Ok(0),
        text => units::size(text),
    })
}

pub(super) fn pids_limit(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.pids_limit, value.whole(0)?)
}

pub(super) fn max_per_user(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.max_per_user, value.whole(0)?)
}

pub(super) fn user_settings(config: &mut Config, value: Value<'_>) -> Outcome {
    let mut names = Vec::new();
    for item in value.list()? {
        let Some(text) = item.text()? else { continue };
        let Some(key) = KEYS.iter().find(|k| k.name == text) else {
            let known = KEYS
                .iter()
                .filter(|k| k.reach == Reach::User)
                .map(|k| k.name);
            let hint = super::suggest(text, known);
            return Err(item.problem(format!("{} is no key{hint}", quote(text))));
        };
        if key.reach != Reach::User {
            return Err(item.problem(format!("{} cannot be left to users", key.name)));
        }
        names.push(key.name);
    }
    config.user_settings = names;
    Ok(())
}

/// `HOST: {insecure, mirrors}`, and `certs` and `auth`, which no host can be called: a
/// registry's name in a reference has a dot or a port, or is `localhost`.
pub(super) fn registries(config: &mut Config, value: Value<'_>) -> Outcome {
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        if entry.key == "certs" {
            let dir = entry.value.absolute_path().map_err(problem)?;
            put(&mut config.registries.certs, dir.map(Some))?;
            continue;
        }
        if entry.key == "auth" {
            let file = entry.value.absolute_path().map_err(problem)?;
            put(&mut config.registries.auth, file)?;
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
