//! `podfile.yaml`: what a project's pod is made of.
//!
//! Pure: a text is read, checked and understood, or refused in one line with file,
//! line and field. What would need an image to be built is refused, not ignored.
//! Where a Podfile comes from decides what it may say ([`Origin`]): paths of the
//! host are for the administrator's alone, because a user's sessions have no other
//! way to the host's files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use podspawn_images::reference::Reference;
use podspawn_runtime::pod::Mode;

use crate::config::{self, ConfigError};
use crate::yaml::{Document, Problem, Value, quote, suggest};

/// Whose Podfile it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The administrator's, named in the list of projects.
    Administrator,
    /// The user's own.
    User,
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
    /// `mode`: when the pod ends.
    pub mode: Option<Mode>,
    /// `resources.cpus`; 0 for no limit.
    pub cpus: Option<f64>,
    /// `resources.memory`, in bytes; 0 for no limit.
    pub memory: Option<u64>,
    /// `services`.
    pub services: Vec<Service>,
}

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

const KNOWN: [&str; 10] = [
    "mode",
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

/// The most services that a pod can have.
const MOST_SERVICES: usize = 32;

impl Podfile {
    /// Reads a Podfile.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(file: &Path, bytes: &[u8], origin: Origin) -> Result<Self, ConfigError> {
        understand(bytes, origin).map_err(|problem| ConfigError {
            file: file.to_owned(),
            line: Some(problem.line),
            key: problem.key,
            text: problem.text,
        })
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

fn understand(bytes: &[u8], origin: Origin) -> Result<Podfile, Problem> {
    let document = Document::parse(bytes)?;
    let mut podfile = Podfile::default();
    for entry in Value::root(&document).entries()? {
        let value = entry.value;
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "base" => podfile.image = value.parsed(reference).map_err(problem)?,
            "name" => {
                value.parsed(host_name).map_err(problem)?;
            }
            "shell" => podfile.shell = value.absolute_path().map_err(problem)?,
            "workspace" => podfile.workspace = value.absolute_path().map_err(problem)?,
            "env" => podfile.env = variables(value).map_err(problem)?,
            "services" => podfile.services = services(value, origin).map_err(problem)?,
            // They say what to publish; here every port is reached through ssh -L.
            "ports" => check_ports(value).map_err(problem)?,
            key if BUILDING.contains(&key) => {
                let text = "needs an image to be built, which this version does not do; \
                            put it into the image that base names";
                return Err(problem(Problem::new(entry.line, text)));
            }
            "mode" => podfile.mode = config::mode_of(value).map_err(problem)?,
            "resources" => resources(&mut podfile, value).map_err(problem)?,
            "mount" => mount(value).map_err(problem)?,
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

/// How the files of a project get into its workspace.
fn mount(value: Value<'_>) -> Result<(), Problem> {
    let known = [("none", true), ("bind", false), ("copy", false)];
    match value.one_of(&known)? {
        Some(false) => Err(value.problem(
            "needs a project's files on the host, which this version does not keep; write none",
        )),
        Some(true) | None => Ok(()),
    }
}

fn services(value: Value<'_>, origin: Origin) -> Result<Vec<Service>, Problem> {
    let mut found: Vec<Service> = Vec::new();
    for (n, item) in value.list()?.into_iter().enumerate() {
        let below = |p: Problem| p.below(&n.to_string());
        let service = service(item, origin).map_err(below)?;
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

fn service(value: Value<'_>, origin: Origin) -> Result<Service, Problem> {
    let (mut name, mut image) = (None, None);
    let (mut ports, mut env, mut command) = (Vec::new(), BTreeMap::new(), Vec::new());
    let (mut volumes, mut ready): (Vec<Volume>, _) = (Vec::new(), None);
    for entry in value.entries()? {
        let value = entry.value;
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "name" => name = value.parsed(host_name).map_err(problem)?,
            "image" => image = value.parsed(reference).map_err(problem)?,
            "ports" => ports = port_list(value).map_err(problem)?,
            "env" => env = variables(value).map_err(problem)?,
            "command" => {
                let texts = value.texts().map_err(problem)?;
                command = texts.into_iter().map(str::to_owned).collect();
            }
            "volumes" => {
                for item in value.list().map_err(problem)? {
                    let volume = item.parsed(|text| volume(text, origin)).map_err(problem)?;
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
        image: image.ok_or_else(|| missing("image"))?,
        ports,
        env,
        command,
        volumes,
        ready,
    })
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

/// `5432`, or `HOST:CONTAINER` as Docker writes it: only the second counts here.
fn port(text: &str) -> Result<u16, String> {
    let last = text.rsplit(':').next().unwrap_or(text);
    let last = last.strip_suffix("/tcp").unwrap_or(last);
    last.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{} is not a TCP port", quote(text)))
}

fn port_list(value: Value<'_>) -> Result<Vec<u16>, Problem> {
    let mut ports = Vec::new();
    for item in value.list()? {
        ports.extend(item.parsed(port)?);
    }
    Ok(ports)
}

fn check_ports(value: Value<'_>) -> Result<(), Problem> {
    for entry in value.entries()? {
        let problem = |p: Problem| p.below(entry.key);
        match entry.key {
            "expose" => drop(port_list(entry.value).map_err(problem)?),
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

/// `NAME:/path` or `/host/path:/path`, with `:ro` after it or not.
fn volume(text: &str, origin: Origin) -> Result<Volume, String> {
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
        if origin == Origin::User {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, origin: Origin) -> Result<Podfile, String> {
        Podfile::read(Path::new("podfile.yaml"), text.as_bytes(), origin).map_err(|e| e.to_string())
    }

    #[test]
    fn a_whole_podfile_is_understood() {
        let text = "
base: registry.example/team/dev:1
name: web
shell: /bin/zsh
workspace: /workspace/web
mode: destroy-on-disconnect
mount: none
resources: {cpus: 1.5, memory: 512m}
env: {DATABASE_URL: 'postgres://postgres@postgres/app', WHO: '${PODSPAWN_USER} of ${PODSPAWN_PROJECT}'}
ports: {strategy: auto, expose: [3000]}
services:
  - name: postgres
    image: postgres:17
    ports: [5432, '15432:5432']
    env: {POSTGRES_PASSWORD: secret}
    volumes: ['pgdata:/var/lib/postgresql/data', '/srv/init:/init:ro']
    ready: pg_isready
  - name: redis
    image: redis
    command: [redis-server, --appendonly, 'yes']
";
        let podfile = read(text, Origin::Administrator).unwrap();
        assert_eq!(podfile.shell, Some("/bin/zsh".into()));
        assert_eq!(podfile.workspace, Some("/workspace/web".into()));
        assert_eq!(podfile.mode, Some(Mode::DestroyOnDisconnect));
        assert_eq!((podfile.cpus, podfile.memory), (Some(1.5), Some(512 << 20)));
        let [postgres, redis] = podfile.services.as_slice() else {
            panic!("{podfile:?}")
        };
        assert_eq!(postgres.ports, [5432, 5432]);
        assert_eq!(postgres.ready.as_deref(), Some("pg_isready"));
        assert_eq!(
            postgres.volumes[0],
            Volume {
                source: Source::Named("pgdata".into()),
                target: "/var/lib/postgresql/data".into(),
                read_only: false
            }
        );
        assert_eq!(postgres.volumes[1].source, Source::Host("/srv/init".into()));
        assert!(postgres.volumes[1].read_only);
        assert_eq!(redis.command, ["redis-server", "--appendonly", "yes"]);
        assert_eq!(
            Podfile::expanded(&podfile.env, "alice", "web")[1],
            "WHO=alice of web"
        );
        assert_eq!(read("", Origin::User).unwrap(), Podfile::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            (
                "bse: x\n",
                "podfile.yaml:1: bse: unknown field; did you mean base?",
            ),
            (
                "base: debian\npackages: [git]\n",
                "podfile.yaml:2: packages: needs an image to be built, which this version does not do; put it into the image that base names",
            ),
            (
                "shell: zsh\n",
                "podfile.yaml:1: shell: \"zsh\" is not an absolute path; begin it with /",
            ),
            (
                "mode: persistant\n",
                "podfile.yaml:1: mode: \"persistant\" is not known; write grace-period, destroy-on-disconnect or persistent",
            ),
            (
                "resources: {cpus: 1, ram: 1g}\n",
                "podfile.yaml:1: resources.ram: unknown field",
            ),
            (
                "mount: bind\n",
                "podfile.yaml:1: mount: needs a project's files on the host, which this version does not keep; write none",
            ),
            (
                "services:\n  - name: db\n",
                "podfile.yaml:2: services.0: a service needs the field image",
            ),
            (
                "services:\n  - {name: db, image: a}\n  - {name: db, image: b}\n",
                "podfile.yaml:3: services.1: a second service is called \"db\"",
            ),
            (
                "services:\n  - {name: DB, image: a}\n",
                "podfile.yaml:2: services.0.name: \"DB\" cannot be a host name; use a-z, 0-9 and - inside, at most 63",
            ),
            (
                "services:\n  - name: db\n    image: a\n    volumes: [data]\n",
                "podfile.yaml:4: services.0.volumes: \"data\" is not a volume; write NAME:/path or /host/path:/path, with :ro after it if it is only read",
            ),
            (
                "services:\n  - name: db\n    image: a\n    ports: [70000]\n",
                "podfile.yaml:4: services.0.ports: \"70000\" is not a TCP port",
            ),
            (
                "env: {1X: y}\n",
                "podfile.yaml:1: env.1X: not the name of a variable; use letters, digits and _",
            ),
            (
                "env: [a]\n",
                "podfile.yaml:1: env: a section of keys is expected",
            ),
        ] {
            assert_eq!(read(text, Origin::User).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn only_the_administrator_names_paths_of_the_host() {
        let text = "services:\n  - {name: db, image: a, volumes: ['/home/alice:/x']}\n";
        assert!(read(text, Origin::Administrator).is_ok());
        let refused = read(text, Origin::User).unwrap_err();
        assert!(
            refused.contains("only the administrator's Podfiles"),
            "{refused}"
        );
        for odd in [
            "/a/../b:/x",
            "../x:/y",
            "a:x",
            "a:/",
            "a:/x:y",
            ":/x",
            "a b:/x",
            "a:/../x",
        ] {
            let text = format!("services:\n  - {{name: db, image: a, volumes: ['{odd}']}}\n");
            assert!(read(&text, Origin::Administrator).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn anything_like_a_podfile_is_read_or_refused(
            text in "(base|env|services|name|ports): ?[a-z0-9:/\\-\\[\\]{}, '\n]{0,120}"
        ) {
            let _ = read(&text, Origin::User);
        }
    }
}
