//! The dev container: its OCI runtime specification, and its creation by
//! libcontainer. Runs in the supervisor.
//!
//! Its PID 1 is the guest's `init`, as root of the container and with no
//! capability at all; sessions enter beside it. It shares the supervisor's user
//! and network namespaces and has its own mount, pid, ipc, uts and cgroup ones.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::kept::KeptMount;
use super::{PodSpec, agents};
use crate::guest;
use crate::pod::readable_by;
use crate::rootfs::Rootfs;
use crate::sockets::agent;

/// Why the container did not start.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The specification could not be written.
    #[error("cannot write the container's specification")]
    Spec(#[from] OciSpecError),
    /// The bundle could not be written.
    #[error("cannot write the container's bundle")]
    Bundle(#[from] io::Error),
    /// There is no place for its devices.
    #[error("cannot make /dev in the container")]
    Devices(#[source] io::Error),
    /// libcontainer failed.
    #[error("cannot create the container: {0}")]
    Create(String),
    /// The guest's init did not run.
    #[error("the container's init did not start; is {0} executable on this host?")]
    Init(PathBuf),
}

/// A running container.
#[derive(Debug)]
pub struct DevContainer {
    /// Its init, in the supervisor's pid namespace.
    pub pid: Pid,
    /// Its init, as sessions get it.
    pub pidfd: OwnedFd,
}

/// Creates and starts the container, and returns once its init runs.
///
/// # Errors
///
/// When the specification cannot be written or libcontainer fails.
pub fn start(
    spec: &PodSpec,
    scratch: &Path,
    rootfs: &Path,
    kept: &[KeptMount],
) -> Result<DevContainer, ContainerError> {
    launch(
        "dev",
        &runtime_spec(spec, scratch, rootfs, kept)?,
        scratch,
        None,
        &spec.guest,
    )
}

/// Creates and starts a container of this specification, with its bundle and state
/// in `dir`, and returns once its init runs. Its output goes to `output`, if given.
///
/// # Errors
///
/// When the bundle cannot be written or libcontainer fails.
pub fn launch(
    id: &str,
    spec: &Spec,
    dir: &Path,
    output: Option<OwnedFd>,
    guest: &Path,
) -> Result<DevContainer, ContainerError> {
    let bundle = dir.join("bundle");
    let state = dir.join("state");
    for dir in [&bundle, &state] {
        std::fs::create_dir(dir)?;
    }
    spec.save(bundle.join("config.json"))?;
    // libcontainer makes links in it by its path, which one of the image's would lead out.
    if let Some(root) = spec.root() {
        let rootfs = Rootfs::open(root.path());
        let made = rootfs.and_then(|rootfs| rootfs.replace_link("dev"));
        made.map_err(ContainerError::Devices)?;
    }

    let failed = |e: &LibcontainerError| {
        ContainerError::Create(with_reason(crate::error::chain(e), &format!("{e:?}")))
    };
    // Closed by the exec of the guest: until then the process still is
    // podspawn, which must not be entered.
    let (executed, unexecuted) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut builder = ContainerBuilder::new(id.into(), SyscallType::Linux)
        .with_root_path(state)
        .map_err(|e| failed(&e))?;
    if let Some(output) = output {
        builder = builder.with_stdout(output.try_clone()?).with_stderr(output);
    }
    let mut container = builder
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| failed(&e))?;
    container.start().map_err(|e| failed(&e))?;
    drop(unexecuted);
    rustix::io::read(executed.as_fd(), &mut [0u8; 1]).map_err(io::Error::from)?;

    let init = || ContainerError::Init(guest.to_path_buf());
    let pid = container
        .pid()
        .and_then(|p| Pid::from_raw(p.as_raw()))
        .ok_or_else(init)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| init())?;
    match has_arguments(pid, &pidfd)? {
        true => Ok(DevContainer { pid, pidfd }),
        false => Err(init()),
    }
}

/// Whether a process that executes, or has failed to, gets the arguments of the program: a while
/// after it has closed its descriptors, if at all.
fn has_arguments(pid: Pid, pidfd: &OwnedFd) -> io::Result<bool> {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    loop {
        // In this order: it may get them, run and end in between.
        let ended = readable_by(pidfd, Instant::now())?;
        if !std::fs::read(&path)?.is_empty() {
            return Ok(true);
        }
        if ended {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The sources of libcontainer's errors may end before the reason, which then only Debug shows:
/// that follows, unless it has no word that was not said.
fn with_reason(said: String, debug: &str) -> String {
    let is_new = |text: &str| !text.trim().is_empty() && !said.contains(text.trim());
    // What is in quotes is somebody's text; beside it stand names of types, and of errors.
    let in_quotes = debug.split('"').skip(1).step_by(2).any(is_new);
    let errors = debug
        .split('"')
        .step_by(2)
        .flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric()))
        .any(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase()));
    match in_quotes || errors {
        true => format!("{said} ({debug})"),
        false => said,
    }
}

fn strings<const N: usize>(items: [&str; N]) -> Vec<String> {
    items.map(String::from).to_vec()
}

fn mount(to: &str, typ: &str, from: &str, options: Vec<String>) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(to)
        .typ(typ)
        .source(from)
        .options(options)
        .build()
}

/// The mounts of the container: what the runtime specification asks of a Linux
/// container, and the guest's directory.
pub fn mounts(
    spec: &PodSpec,
    scratch: &Path,
    kept: &[KeptMount],
) -> Result<Vec<Mount>, OciSpecError> {
    let mut devpts = strings([
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ]);
    if spec.map.has_gid(TTY_GROUP) {
        devpts.push(format!("gid={TTY_GROUP}"));
    }
    let mut mounts = vec![
        mount(
            "/proc",
            "proc",
            "proc",
            strings(["nosuid", "noexec", "nodev"]),
        )?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            strings(["nosuid", "strictatime", "mode=755", "size=65536k"]),
        )?,
        mount("/dev/pts", "devpts", "devpts", devpts)?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            strings(["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        )?,
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            strings(["nosuid", "noexec", "nodev"]),
        )?,
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            strings(["nosuid", "noexec", "nodev", "ro"]),
        )?,
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            strings(["nosuid", "noexec", "nodev", "relatime", "ro"]),
        )?,
        mount(
            guest::DIR,
            "tmpfs",
            "podspawn",
            strings(["nosuid", "nodev", "mode=755", "size=64k"]),
        )?,
        bind(&spec.guest, guest::PATH, &["nodev", "nosuid"])?,
    ];
    // What the supervisor mounts there later appears here too.
    mounts.push(bind(
        &scratch.join(agents::NAME),
        agent::DIR,
        &["nodev", "nosuid", "noexec", "rslave"],
    )?);
    // Before what podspawn brings in, should that be below them, and one before what is below it.
    let mut kept: Vec<&KeptMount> = kept.iter().collect();
    kept.sort_by_key(|mount| mount.to.components().count());
    for (n, KeptMount { from, to }) in kept.into_iter().enumerate() {
        let options = strings(["bind", "rw", "nosuid", "nodev"]);
        let (to, from) = (to.to_string_lossy(), from.to_string_lossy());
        mounts.insert(n, mount(&to, "bind", &from, options)?);
    }
    for (n, dir) in spec.terminfo.iter().enumerate() {
        mounts.push(bind(
            dir,
            &guest::terminfo(n),
            &["nodev", "nosuid", "noexec"],
        )?);
    }
    for tmpfs in &spec.security.tmpfs {
        let kept = ["nosuid", "nodev"].map(String::from);
        let options = kept.into_iter().chain(tmpfs.options.iter().cloned());
        mounts.push(mount(
            &tmpfs.path.to_string_lossy(),
            "tmpfs",
            "tmpfs",
            options.collect(),
        )?);
    }
    Ok(mounts)
}

/// The namespaces that every container has of its own; the user's is the pod's.
pub fn namespaces() -> Result<Vec<LinuxNamespace>, OciSpecError> {
    [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ]
    .into_iter()
    .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build())
    .collect()
}

/// What of /proc and /sys a container does not see.
pub fn masked_paths() -> Vec<String> {
    strings([
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ])
}

/// What of /proc it cannot write.
pub fn readonly_paths() -> Vec<String> {
    strings([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ])
}

/// The group that terminals belong to, the same number on every distribution.
const TTY_GROUP: u32 = 5;

fn bind(from: &Path, to: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = ["bind", "ro"]
        .iter()
        .chain(options)
        .map(|o| (*o).to_owned())
        .collect();
    MountBuilder::default()
        .destination(to)
        .typ("bind")
        .source(from)
        .options(options)
        .build()
}

fn runtime_spec(
    spec: &PodSpec,
    scratch: &Path,
    rootfs: &Path,
    kept: &[KeptMount],
) -> Result<Spec, OciSpecError> {
    let none = Capabilities::default;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none())
        .effective(none())
        .permitted(none())
        .inheritable(none())
        .ambient(none())
        .build()?;
    // Without a root in the map the user's own id is the only one there is.
    let (uid, gid) = if spec.map.has_uid(0) {
        (0, 0)
    } else {
        (spec.login.uid, spec.login.gid)
    };
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(uid).gid(gid).build()?)
        .args(strings([guest::PATH, "init"]))
        .env(strings(["PATH=/usr/bin:/bin"]))
        .cwd("/")
        .capabilities(capabilities)
        .rlimits(Vec::new())
        .no_new_privileges(true)
        .build()?;
    let linux = LinuxBuilder::default()
        .namespaces(namespaces()?)
        .rootfs_propagation("slave")
        .masked_paths(masked_paths())
        .readonly_paths(readonly_paths())
        .build()?;
    SpecBuilder::default()
        .version("1.2.0")
        .hostname(spec.paths.name.host_name())
        .root(
            RootBuilder::default()
                .path(rootfs)
                .readonly(spec.security.readonly_rootfs)
                .build()?,
        )
        .process(process)
        .mounts(mounts(spec, scratch, kept)?)
        .linux(linux)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_given_once() {
        let said = "failed to create container: exec process failed: no rootfs";
        let same = r#"CreateContainerError(MainProcess(Channel(ExecError("no rootfs"))), None)"#;
        assert_eq!(with_reason(said.into(), same), said);
        for more in [
            r#"CreateContainerError(ExecError("no rootfs: EPERM"))"#,
            "Syscall(Nix(EPERM))",
        ] {
            assert_eq!(with_reason(said.into(), more), format!("{said} ({more})"));
        }
    }
}
