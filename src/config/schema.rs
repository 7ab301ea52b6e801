//! Every key, once: its name, what it sets, who may set it, and what the manual
//! says of it.
//!
//! Pure. [`KEYS`] is what the reader, the suggestions for a mistyped key, the
//! check of `user_settings`, the list of keys without effect and the manual page
//! all go by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::value::Value;
use super::yaml::Problem;
use super::{Config, security, set};

/// Who may give a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The administrator, in `config.yaml` alone: it concerns the host.
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
#[derive(Debug)]
pub struct Key {
    /// Sections and name, with dots.
    pub name: &'static str,
    /// Who may give it.
    pub reach: Reach,
    /// Set if it changes nothing.
    pub without_effect: Option<WithoutEffect>,
    /// What the manual says of it.
    pub about: &'static str,
    /// Checks the value and puts it into the configuration.
    pub(super) set: Set,
}

type Set = fn(&mut Config, Value<'_>) -> Result<(), Problem>;

const fn key(name: &'static str, reach: Reach, set: Set, about: &'static str) -> Key {
    Key {
        name,
        reach,
        without_effect: None,
        about,
        set,
    }
}

const fn later(name: &'static str, reach: Reach, set: Set, about: &'static str) -> Key {
    Key {
        name,
        reach,
        without_effect: Some(WithoutEffect::NotYet),
        about,
        set,
    }
}

const fn never(name: &'static str, set: Set) -> Key {
    let without_effect = Some(WithoutEffect::NoMeaning);
    Key {
        name,
        reach: Host,
        without_effect,
        about: "Read, and without a meaning here.",
        set,
    }
}

use Reach::{Administrator, Host, User};

/// All keys of `config.yaml` and, by their reach, of the per-user files.
pub const KEYS: &[Key] = &[
    key(
        "defaults.image",
        User,
        set::image,
        "Image of a new pod. Default: ubuntu:24.04.",
    ),
    key(
        "defaults.shell",
        User,
        set::shell,
        "Shell of an interactive session, an absolute path; where the image has none there, \
         bash or sh. Default: /bin/bash.",
    ),
    key(
        "defaults.cpus",
        User,
        set::cpus,
        "Processors that a pod may use, such as 2.0; 0 for no limit. Needs a cgroup of the \
         pod's own. Default: 2.0.",
    ),
    key(
        "defaults.memory",
        User,
        set::memory,
        "Memory that a pod may use, such as 2g; 0 for no limit. Without a cgroup of the pod's \
         own, what each of its processes may allocate. Default: 2g.",
    ),
    key(
        "session.mode",
        User,
        set::mode,
        "When a pod ends: grace-period, a while after its last session; destroy-on-disconnect, \
         with it; persistent, when it is stopped, and its home stays even then. \
         Default: grace-period.",
    ),
    key(
        "session.grace_period",
        User,
        set::grace_period,
        "How long a pod outlives its last session, such as 90s or 1h30m. Default: 60s.",
    ),
    key(
        "session.max_lifetime",
        Administrator,
        set::max_lifetime,
        "How long a pod may live at most, whoever is in it, but in mode persistent; 0 for no \
         limit. Time in which the host is suspended does not count. Default: 8h.",
    ),
    key(
        "home",
        Administrator,
        set::home,
        "What the session user's home is: ephemeral, gone with the pod; persistent, kept for the \
         next pod of that name; host, the user's own on the host. If not given, it is \
         persistent in mode persistent, else ephemeral.",
    ),
    key(
        "storage.keep_root",
        User,
        set::keep_root,
        "Whether everything that is written to a pod's root file system is kept for the next pod \
         of that name, such as installed packages. Default: false.",
    ),
    key(
        "storage.root",
        Administrator,
        set::storage_root,
        "Absolute path of the user's images and pods, in which {user} and {uid} stand for the \
         user's. Default: $XDG_DATA_HOME/podspawn or ~/.local/share/podspawn.",
    ),
    key(
        "storage.system_cache",
        Host,
        set::system_cache,
        "Absolute path of a directory of blobs that root owns and every user's pull takes what it \
         can from, verified as if it came from the registry; podspawn pull --system fills it. \
         none: no such directory. Default: /var/cache/podspawn.",
    ),
    key(
        "registries",
        Administrator,
        set::registries,
        "A section a registry, by its name in references (docker.io, registry.example:5000), \
         with: insecure, true where certificates need not be verified and plain HTTP will do; \
         mirrors, a list of HOST[:PORT][/PREFIX] to ask first. And certs: a directory in the \
         certs.d layout of docker and podman, looked at before theirs. And auth: an auth file for every \
         user who may read it, looked at after their own (podspawn login --system; default: \
         /etc/podspawn/auth.json). Registries on loopback \
         addresses may speak plain HTTP without being named.",
    ),
    key(
        "images.allow",
        Administrator,
        set::allow,
        "The images that may be pulled and used, a list of patterns: docker.io/library/ubuntu, any \
         version of that repository; docker.io/library/ubuntu:24.*, these tags; ghcr.io/acme/*, in \
         which * is any text between slashes; *.example.org/**, any subdomain and any repository; \
         ghcr.io/acme/dev@sha256:DIGEST or sha256:DIGEST, this content alone. An image from a file \
         has no origin, so only patterns with a digest allow it. An empty list allows nothing; \
         without the key, everything is allowed.",
    ),
    key(
        "images.max_size",
        Administrator,
        set::max_image_size,
        "Size that an image's layers may have together, compressed as they are fetched. \
         Default: 64g.",
    ),
    key(
        "images.max_layer_size",
        Administrator,
        set::max_layer_size,
        "Size that a layer may have when it is unpacked. Default: 32g.",
    ),
    key(
        "images.max_layer_entries",
        Administrator,
        set::max_layer_entries,
        "Files and directories that a layer may have. Default: 2000000.",
    ),
    key(
        "images.max_layers",
        Administrator,
        set::max_layers,
        "Layers that an image may have. Default: 499, the most there can be.",
    ),
    key(
        "user",
        User,
        set::user,
        "Who a session is inside of the container: self, the user who logged in; image, the \
         user that the image names; or root. Default: self.",
    ),
    key(
        "network",
        User,
        set::network,
        "What a pod can reach: pasta, what the host reaches, but not the host itself; or none, \
         its own loopback. Where the host has no pasta (package passt), a pod has no network \
         and its log says so. Default: pasta.",
    ),
    key(
        "user_settings",
        Administrator,
        set::user_settings,
        "The keys that users may give in a file of their own. \
         Default: [defaults.image, defaults.shell, session.grace_period].",
    ),
    key(
        "auth.key_dir",
        Host,
        set::key_dir,
        "Directory of the public keys that add-user keeps, a file a user. \
         Default: /etc/podspawn/keys.",
    ),
    key(
        "log.file",
        Host,
        set::log,
        "File for what happens to pods, a line an event, in which {user} and {uid} stand for the \
         user's. It is written to as the user, who must be able to, and made with mode 0600 if it \
         is missing. Without it: the journal, where there is one.",
    ),
    key(
        "log.audit_log",
        Host,
        set::audit_log,
        "File for who did what: a JSON object a line for each connection, what it ran, how it \
         ended, and for pods created and destroyed. As log.file; what users write, they can also \
         change. Without it: the journal, where there is one.",
    ),
    key(
        "security.cap_drop",
        Administrator,
        security::cap_drop,
        "Capabilities that programs in a pod never have; without ALL, the others are those that \
         Docker gives. Default: [ALL].",
    ),
    key(
        "security.cap_add",
        Administrator,
        security::cap_add,
        "Capabilities that programs of root's, or with file capabilities, may have all the same. \
         Default: [CHOWN, SETUID, SETGID, DAC_OVERRIDE, FOWNER, NET_BIND_SERVICE].",
    ),
    key(
        "security.no_new_privileges",
        Administrator,
        security::no_new_privileges,
        "Whether setuid programs and file capabilities are without effect. Default: true.",
    ),
    key(
        "security.sudo",
        Administrator,
        security::sudo,
        "Whether the user may use the image's sudo without a password, to become root of the \
         container; no_new_privileges is off then. Default: false.",
    ),
    key(
        "security.pids_limit",
        Administrator,
        set::pids_limit,
        "Processes and threads that a pod may have; 0 for no limit. Without a cgroup of the \
         pod's own, those of the session user. Default: 256.",
    ),
    key(
        "security.readonly_rootfs",
        Administrator,
        security::readonly_rootfs,
        "Whether the root of a container cannot be written; security.tmpfs and a kept home can. \
         Default: false.",
    ),
    key(
        "security.tmpfs",
        Administrator,
        security::tmpfs,
        "Paths at which memory is mounted, each with its mount options, such as \
         /tmp: size=64m,noexec.",
    ),
    never("security.runtime", set::any_text),
    key(
        "resources.max_per_user",
        Administrator,
        set::max_per_user,
        "Pods that a user may have at once; 0 for no limit. Default: 3.",
    ),
    key(
        "projects_file",
        Host,
        set::projects_file,
        "File that lists the projects: under the name of each, podfile, the absolute path of \
         its Podfile. Without it: projects.yaml beside this file.",
    ),
    key(
        "state.homes_dir",
        Host,
        set::homes_dir,
        "Directory in which each user has a directory of their own, by login name, for their \
         persistent homes. If not given, they are beside the user's images.",
    ),
    never("state.db_path", set::any_text),
    never("state.lock_dir", set::any_text),
];

/// The short names of upstream's per-user files, and the keys they stand for.
pub const SHORT: &[(&str, &str)] = &[
    ("image", "defaults.image"),
    ("shell", "defaults.shell"),
    ("cpus", "defaults.cpus"),
    ("memory", "defaults.memory"),
    ("mode", "session.mode"),
];

/// What only the administrator's per-user files have.
pub const PER_USER: &[Key] = &[
    later(
        "env",
        Administrator,
        set::any_texts_by_name,
        "Variables of the environment.",
    ),
    later(
        "dotfiles.repo",
        Administrator,
        set::any_text,
        "Repository to clone into the home.",
    ),
    later(
        "dotfiles.install",
        Administrator,
        set::any_text,
        "Command to run in it.",
    ),
];

/// What the configuration says about registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registries {
    /// By the name in references.
    pub hosts: BTreeMap<String, Registry>,
    /// A directory in the `certs.d` layout, looked at before the usual ones.
    pub certs: Option<PathBuf>,
    /// The auth file of the host, looked at after the user's own.
    pub auth: PathBuf,
}

impl Default for Registries {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            certs: None,
            auth: "/etc/podspawn/auth.json".into(),
        }
    }
}

/// What is particular about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Certificates are not verified, and plain HTTP will do.
    pub insecure: bool,
    /// Asked first, in this order: `HOST[:PORT][/PREFIX]`.
    pub mirrors: Vec<String>,
}
