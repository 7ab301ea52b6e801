//! A service as the session describes it, and its OCI runtime specification.
//! Pure, but for what it is told of the service's root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::sockets::agent;
use crate::supervisor::{PodImage, PodSpec, container};
use crate::{guest, seccomp};

/// A companion of the dev container.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Its name, which is its host name.
    pub name: String,
    /// What it runs.
    pub image: PodImage,
    /// TCP ports that accept once it is ready.
    pub ports: Vec<u16>,
    /// Variables beside the image's, `NAME=value`.
    pub env: Vec<String>,
    /// In the place of the image's command, if not empty.
    pub command: Vec<String>,
    /// What outlives it.
    pub volumes: Vec<Volume>,
    /// What succeeds in it once it is ready, when its ports accept.
    pub check: Option<Check>,
}

/// A command that is run in a service until it succeeds once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is, for people: `its ready command`.
    pub name: &'static str,
    /// What runs.
    pub command: CheckCommand,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long to wait after one that did not succeed.
    pub pause: Duration,
}

/// What a check runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckCommand {
    /// A line for the service's shell.
    Shell(String),
    /// A program, sought along `PATH`, and its arguments.
    Program(Vec<String>),
}

/// A directory of the host's, inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Whether it is podspawn's own, to be made if it is missing.
    pub named: bool,
    /// Where it appears.
    pub target: PathBuf,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// What the container's root says of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Other groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// What a service's programs may do in its container: what the start scripts of
/// databases do to become another user, and no more.
const CAPABILITIES: [Capability; 7] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    // Its init passes the stop signal on to a server that became another user.
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setuid,
];

/// What it runs: the image's entry point and the command.
#[must_use]
pub fn arguments(service: &ServiceSpec) -> Vec<String> {
    let config = service.image.config.config().as_ref();
    let entrypoint = config.and_then(|c| c.entrypoint().clone());
    let command = match service.command.is_empty() {
        true => config.and_then(|c| c.cmd().clone()).unwrap_or_default(),
        false => service.command.clone(),
    };
    entrypoint
        .unwrap_or_default()
        .into_iter()
        .chain(command)
        .collect()
}

/// Its environment: the image's, then its own.
#[must_use]
pub fn environment(service: &ServiceSpec, home: &str) -> Vec<String> {
    let config = service.image.config.config().as_ref();
    let mut all = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOME={home}"),
        format!("HOSTNAME={}", service.name),
    ];
    let image = config.and_then(|c| c.env().clone()).unwrap_or_default();
    for line in image.iter().chain(&service.env) {
        let name = line.split('=').next().unwrap_or_default();
        all.retain(|l| l.split('=').next() != Some(name));
        all.push(line.clone());
    }
    all
}

/// The whole specification.
///
/// # Errors
///
/// When it cannot be put together.
pub fn runtime_spec(
    pod: &PodSpec,
    service: &ServiceSpec,
    rootfs: &Path,
    netns: &Path,
    who: &Identity,
) -> Result<Spec, OciSpecError> {
    let set: Capabilities = CAPABILITIES.into_iter().collect();
    let held = if who.uid == 0 {
        set.clone()
    } else {
        Capabilities::default()
    };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set)
        .effective(held.clone())
        .permitted(held)
        .inheritable(Capabilities::default())
        .ambient(Capabilities::default())
        .build()?;
    let config = service.image.config.config().as_ref();
    let cwd = config
        .and_then(|c| c.working_dir().clone())
        .filter(|dir| dir.starts_with('/'))
        .unwrap_or_else(|| "/".into());
    let mut args = vec![guest::PATH.to_owned(), "init".into(), "--".into()];
    args.extend(arguments(service));
    let user = UserBuilder::default()
        .uid(who.uid)
        .gid(who.gid)
        .additional_gids(who.groups.clone())
        .build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(args)
        .env(environment(service, &who.home))
        .cwd(cwd)
        .capabilities(capabilities)
        .rlimits(Vec::new())
        .no_new_privileges(true)
        .build()?;
    let mut namespaces = container::namespaces()?;
    namespaces.push(
        LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(netns)
            .build()?,
    );
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(container::masked_paths())
        .readonly_paths(container::readonly_paths())
        .seccomp(seccomp::of_service()?)
        .build()?;
    let mut mounts = container::mounts(pod, &pod.paths.scratch(), &[])?;
    // The agents of sessions are for the dev container alone.
    mounts.retain(|m| !m.destination().starts_with(agent::DIR));
    for volume in &service.volumes {
        let mut options = vec!["bind".to_owned(), "nosuid".into(), "nodev".into()];
        options.push(if volume.read_only { "ro" } else { "rw" }.to_owned());
        mounts.push(
            MountBuilder::default()
                .destination(&volume.target)
                .typ("bind")
                .source(&volume.source)
                .options(options)
                .build()?,
        );
    }
    SpecBuilder::default()
        .version("1.2.0")
        .hostname(service.name.clone())
        .root(
            RootBuilder::default()
                .path(rootfs)
                .readonly(false)
                .build()?,
        )
        .process(process)
        .mounts(mounts)
        .linux(linux)
        .build()
}
