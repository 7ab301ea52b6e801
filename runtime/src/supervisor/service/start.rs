//! Bringing a service up: its root, its bundle, its container.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use oci_spec::runtime::Spec;

use super::spec::{self, Identity, ServiceSpec, Volume};
use crate::accounts;
use crate::network::Bridge;
use crate::rootfs::{Ownership, Rootfs};
use crate::supervisor::container::{self, ContainerError, DevContainer};
use crate::supervisor::mounts::{MountError, Overlay};
use crate::supervisor::{PodSpec, provision, storage};

/// Why a service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file or directory of it.
    #[error("{what}")]
    File {
        /// What could not be done, on what.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Its root could not be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image wants to run as somebody unknown.
    #[error(
        "its image wants to run as {0:?}, which its /etc/passwd does not have, or which has no subordinate id"
    )]
    NoSuchUser(String),
    /// Nothing to run.
    #[error("its image names no command; give one as `command`")]
    NoCommand,
    /// The container did not start.
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// What is needed to start it, again and again.
pub struct Prepared {
    /// Its OCI runtime specification.
    pub bundle: Spec,
    /// Where libcontainer keeps its state and the bundle.
    pub scratch: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// The signal that asks it to end.
    pub stop: Signal,
    /// Its address.
    pub address: Ipv4Addr,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServiceError {
    let what = what.into();
    move |source| ServiceError::File { what, source }
}

/// Makes its root and its network.
///
/// # Errors
///
/// The first step that failed.
pub fn prepare(
    pod: &PodSpec,
    service: &ServiceSpec,
    n: usize,
    bridge: &mut Bridge,
    names: &str,
    resolv_conf: Option<&str>,
) -> Result<Prepared, ServiceError> {
    let scratch = pod.paths.scratch().join("services").join(&service.name);
    let (rootfs, netns) = (scratch.join("rootfs"), scratch.join("netns"));
    fs::create_dir_all(&rootfs).map_err(failed("cannot make its directories"))?;
    let storage = pod.paths.storage().join("services").join(&service.name);
    let (upper, work) = storage::fresh_service(&storage, service.image.lowers.last()).map_err(
        failed(format!("cannot prepare its storage {}", storage.display())),
    )?;
    let overlay = Overlay {
        lowers: &service.image.lowers,
        upper: &upper,
        work: &work,
        kept: false,
    };
    overlay.mount(&rootfs, &scratch)?;

    let root = Rootfs::open(&rootfs).map_err(failed("cannot open its root"))?;
    let who = identity(pod, service, &root)?;
    if spec::arguments(service).is_empty() {
        return Err(ServiceError::NoCommand);
    }
    let own = |mode| Ownership {
        owner: pod.map.has_uid(0).then_some((0, 0)),
        mode,
    };
    root.make_dir(Path::new("/etc"), own(0o755), own(0o755))
        .map_err(failed("cannot make its /etc"))?;
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{names}");
    let mut files = vec![("/etc/hosts", hosts.as_str())];
    files.extend(resolv_conf.map(|text| ("/etc/resolv.conf", text)));
    for (path, text) in files {
        root.replace(Path::new(path), text.as_bytes(), own(0o644))
            .map_err(failed(format!("cannot write its {path}")))?;
    }
    for volume in &service.volumes {
        make_volume(pod, volume, &root)?;
    }
    bridge
        .add(n, &netns)
        .map_err(failed("cannot make its network"))?;
    let bundle =
        spec::runtime_spec(pod, service, &rootfs, &netns, &who).map_err(ContainerError::from)?;
    let stop = service.image.config.config().as_ref();
    let stop = stop
        .and_then(|c| c.stop_signal().clone())
        .unwrap_or_default();
    Ok(Prepared {
        bundle,
        scratch,
        log: storage.join("log"),
        stop: stop_signal(&stop),
        address: bridge.address_of(n),
    })
}

/// `SIGINT`, `INT` or `2`; SIGTERM where the image says nothing.
fn stop_signal(text: &str) -> Signal {
    let number = text.parse::<i32>().ok();
    let named = || {
        let text = text.to_ascii_uppercase();
        let name = if text.starts_with("SIG") {
            text
        } else {
            format!("SIG{text}")
        };
        name.parse().ok()
    };
    number
        .and_then(|n| Signal::try_from(n).ok())
        .or_else(named)
        .unwrap_or(Signal::SIGTERM)
}

fn identity(pod: &PodSpec, service: &ServiceSpec, root: &Rootfs) -> Result<Identity, ServiceError> {
    let config = service.image.config.config().as_ref();
    let wanted = config.and_then(|c| c.user().clone()).unwrap_or_default();
    let read = |path: &str| {
        let read = root
            .read(Path::new(path))
            .map_err(failed(format!("cannot read its {path}")));
        read.map(Option::unwrap_or_default)
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let name = if wanted.is_empty() { "0" } else { &wanted };
    // Without subordinate ids everything is the user's own.
    let (name, single) = match pod.map.is_single() {
        true => (pod.login.uid.to_string(), true),
        false => (name.to_owned(), false),
    };
    let account = provision::named(&passwd, &name, &group)
        .ok_or_else(|| ServiceError::NoSuchUser(name.clone()))?;
    let gid = if single { pod.login.gid } else { account.gid };
    if !pod.map.has_uid(account.uid) || !pod.map.has_gid(gid) {
        return Err(ServiceError::NoSuchUser(name));
    }
    let groups = accounts::groups_of(&group, &account.name);
    Ok(Identity {
        uid: account.uid,
        gid,
        groups: groups
            .into_iter()
            .filter(|g| pod.map.has_gid(*g) && !single)
            .collect(),
        home: account.home,
    })
}

/// A named volume belongs to whom the image's directory at its place belongs to.
fn make_volume(pod: &PodSpec, volume: &Volume, root: &Rootfs) -> Result<(), ServiceError> {
    let source = &volume.source;
    if !volume.named {
        return match fs::metadata(source) {
            Ok(_) => Ok(()),
            Err(e) => Err(failed(format!(
                "cannot use the volume {}",
                source.display()
            ))(e)),
        };
    }
    let what = || format!("cannot make the volume {}", source.display());
    if let Some(volumes) = source.parent() {
        fs::create_dir_all(volumes).map_err(failed(what()))?;
    }
    match fs::create_dir(source) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(failed(what()))?,
    }
    let found = root
        .owner_of(&volume.target)
        .filter(|(uid, gid, _)| pod.map.has_uid(*uid) && pod.map.has_gid(*gid));
    let (owner, mode) = match found {
        Some((uid, gid, mode)) => (Some((uid, gid)), mode),
        None => (pod.map.has_uid(0).then_some((0, 0)), 0o755),
    };
    if let Some((uid, gid)) = owner {
        chown(source, Some(uid), Some(gid)).map_err(failed(what()))?;
    }
    fs::set_permissions(source, fs::Permissions::from_mode(mode)).map_err(failed(what()))
}

/// Starts its container, for the `count`th time.
///
/// # Errors
///
/// When the container does not start.
pub fn start(prepared: &Prepared, count: u32, guest: &Path) -> Result<DevContainer, ServiceError> {
    let dir = prepared.scratch.join(format!("run{count}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(failed("cannot make its directories"))?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&prepared.log)
        .map_err(failed("cannot open its log"))?;
    let id = format!("service{count}");
    Ok(container::launch(
        &id,
        &prepared.bundle,
        &dir,
        Some(log.into()),
        guest,
    )?)
}

/// The last lines of what it wrote, the latest last.
#[must_use]
pub fn last_lines(log: &Path, count: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    const END: u64 = 4096;
    let mut text = Vec::new();
    if let Ok(mut file) = fs::File::open(log) {
        let length = file.metadata().map_or(0, |m| m.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(END)));
        let _ = file.take(END).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(count);
    lines[from..]
        .iter()
        .map(|l| l.chars().take(300).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_have_names_and_numbers() {
        assert_eq!(stop_signal("SIGINT"), Signal::SIGINT);
        assert_eq!(stop_signal("quit"), Signal::SIGQUIT);
        assert_eq!(stop_signal("2"), Signal::SIGINT);
        for odd in ["", "SIGWHATEVER", "9999", "-1"] {
            assert_eq!(stop_signal(odd), Signal::SIGTERM, "{odd}");
        }
    }

    #[test]
    fn the_last_lines_are_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "a\nb\n\nc\n").unwrap();
        assert_eq!(last_lines(&log, 2), ["b", "c"]);
        assert!(last_lines(&dir.path().join("none"), 2).is_empty());
    }
}
