//! `services` of a Podfile: containers beside the dev container.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use podspawn_images::reference::Reference;

use super::{Rules, host_name, image, variables};
use crate::yaml::{Problem, Value, quote, suggest};

/// One entry of `services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its host name.
    pub name: String,
    /// Its image.
    pub image: Reference,
    /// Ports that accept once it is ready.
    pub ports: Vec<u16>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// In the place of the image's command.
    pub command: Vec<String>,
    /// What outlives it.
    pub volumes: Vec<Volume>,
    /// A command that succeeds once it is ready.
    pub ready: Option<String>,
}

/// One entry of a service's `volumes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it comes from.
    pub source: Source,
    /// Where it appears.
    pub target: PathBuf,
    /// `:ro` at the end.
    pub read_only: bool,
}

/// Where a volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume of the user's, by name.
    Named(String),
    /// A directory of the host's.
    Host(PathBuf),
}

/// The most services that a pod can have.
pub const MOST_SERVICES: usize = 32;

pub(super) fn services(value: Value<'_>, rules: &Rules) -> Result<Vec<Service>, Problem> {
    let mut found: Vec<Service> = Vec::new();
    for (n, item) in value.list()?.into_iter().enumerate() {
        let below = |p: Problem| p.below(&n.to_string());
        let service = service(item, rules).map_err(below)?;
        if found.iter().any(|s| s.name == service.name) {
            let text = format!("a second service is called {}", quote(&service.name));
            return Err(below(item.problem(text)));
        }
        found.push(service);
    }
    if found.len() > MOST_SERVICES {
        return Err(value.problem(format!("at most {MOST_SERVICES} services can run")));
    }
    Ok(found)
}

fn service(value: Value<'_>, rules: &Rules) -> Result<Service, Problem> {
    let (mut name, mut reference) = (None, None);
    let (mut ports, mut env, mut command) = (Vec::new(), BTreeMap::new(), Vec::new());
    let (mut volumes, mut ready): (Vec<Volume>, _) = (Vec::new(), None);
    for entry in value.entries()? {
        let value = entry.value;
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "name" => name = value.parsed(host_name).map_err(problem)?,
            "image" => reference = image(value, rules).map_err(problem)?,
            "ports" => ports = port_list(value).map_err(problem)?,
            "env" => env = variables(value).map_err(problem)?,
            "command" => {
                let texts = value.texts().map_err(problem)?;
                command = texts.into_iter().map(str::to_owned).collect();
            }
            "volumes" => {
                for item in value.list().map_err(problem)? {
                    let volume = item.parsed(|text| volume(text, rules)).map_err(problem)?;
                    volumes.extend(volume);
                }
                let mut targets = BTreeSet::new();
                if let Some(twice) = volumes.iter().find(|v| !targets.insert(&v.target)) {
                    let text = format!("two volumes at {}", twice.target.display());
                    return Err(problem(value.problem(text)));
                }
            }
            "ready" => ready = value.text().map_err(problem)?.map(str::to_owned),
            other => {
                let known = [
                    "name", "image", "ports", "env", "command", "volumes", "ready",
                ];
                let hint = suggest(other, known.into_iter());
                return Err(problem(Problem::new(
                    entry.line,
                    format!("unknown field{hint}"),
                )));
            }
        }
    }
    let missing = |field: &str| value.problem(format!("a service needs the field {field}"));
    Ok(Service {
        name: name.ok_or_else(|| missing("name"))?,
        image: reference.ok_or_else(|| missing("image"))?,
        ports,
        env,
        command,
        volumes,
        ready,
    })
}

/// `5432`, or `HOST:CONTAINER` as Docker writes it: only the second counts here.
fn port(text: &str) -> Result<u16, String> {
    let last = text.rsplit(':').next().unwrap_or(text);
    let last = last.strip_suffix("/tcp").unwrap_or(last);
    last.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{} is not a TCP port", quote(text)))
}

pub(super) fn port_list(value: Value<'_>) -> Result<Vec<u16>, Problem> {
    let mut ports = Vec::new();
    for item in value.list()? {
        ports.extend(item.parsed(port)?);
    }
    Ok(ports)
}

/// `NAME:/path` or `/host/path:/path`, with `:ro` after it or not.
fn volume(text: &str, rules: &Rules) -> Result<Volume, String> {
    let malformed = || {
        format!(
            "{} is not a volume; write NAME:/path or /host/path:/path, with :ro after it if it \
             is only read",
            quote(text)
        )
    };
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let (source, target) = rest.split_once(':').ok_or_else(malformed)?;
    let is_path = |path: &str| {
        path.starts_with('/')
            && !path.contains('\0')
            && !path.split('/').any(|p| p == ".." || p == ".")
    };
    if !is_path(target) || target.trim_matches('/').is_empty() || target.contains(':') {
        return Err(malformed());
    }
    let source = if source.starts_with('/') {
        if !is_path(source) {
            return Err(malformed());
        }
        if !rules.host_paths {
            return Err(format!(
                "{} is a path of the host, which only the administrator's Podfiles may name; \
                 use a named volume",
                quote(source)
            ));
        }
        Source::Host(source.into())
    } else {
        let letters = |c: char| c.is_ascii_alphanumeric();
        let fits = (1..=63).contains(&source.len())
            && source.starts_with(letters)
            && source.chars().all(|c| letters(c) || "-_.".contains(c));
        if !fits {
            return Err(malformed());
        }
        Source::Named(source.to_owned())
    };
    Ok(Volume {
        source,
        target: target.into(),
        read_only,
    })
}
