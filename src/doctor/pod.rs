//! Making a pod as the first session of a user does, by the same code: its namespaces, all that
//! the supervisor and its container mount, a session and its filter. The image is an empty
//! directory; what runs is the guest, which every pod has.
//!
//! In a process of its own, because a session enters namespaces and does not come back. Nothing
//! stays of the pod. What it means is pure.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use podspawn_runtime::pod::{ClearError, Mode, PodName, PodPaths, attach_or_launch, remove, stop};
use podspawn_runtime::session::{self, Action, Ending};
use podspawn_runtime::supervisor::PodImage;
use podspawn_runtime::{cgroup, guest, idmap, probe};

use super::Finding;
use crate::cli::{Place, namespace};
use crate::exit::Failure;
use crate::podfile::Podfile;
use crate::project::Project;
use crate::session::{here, paths, session_of, throw_away};
use crate::spec::{means, of_image};
use crate::{output, services};

/// How the way out of the pod was, or why there was no pod.
pub type Tried = Result<String, String>;

/// How long its supervisor may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What of its text says that there was no way out.
const DOWN: &str = "down: ";

/// Has a process make the pod, and one clear it away.
///
/// # Errors
///
/// One line, when it could not be made.
pub fn tried(podspawn: impl Fn() -> Command) -> Tried {
    let done = podspawn()
        .args(["doctor", "--try-pod"])
        .output()
        .map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    Err(super::said(&done.stderr))
}

/// Has another process go into a pod of a name that nobody has, answers as that does, and sees
/// that nothing stays.
///
/// # Errors
///
/// One line, when it could not be made or not be cleared away.
pub fn try_one(place: &Place, mut podspawn: Command) -> Result<(), Failure> {
    let paths = paths(place, throw_away("doctor")?)?;
    let done = podspawn
        .args(["doctor", "--in-pod", paths.name.as_str()])
        .output()?;
    if !done.status.success() {
        let line = super::said(&done.stderr);
        let named = format!("cannot start pod {}: ", paths.name);
        let line = line.strip_prefix(&named).unwrap_or(&line).to_owned();
        let refused = refused_mounts(&paths);
        let _ = clear(place, &paths);
        return Err(Failure::new(with_refused(line, &refused)));
    }
    clear(place, &paths)?;
    Ok(output::answer(&String::from_utf8_lossy(&done.stdout))?)
}

/// What the kernel refuses to mount. Without namespaces, nothing was tried.
fn refused_mounts(paths: &PodPaths) -> Vec<String> {
    let on = paths.storage().join("image");
    probe::refused_mounts(&on).unwrap_or_default()
}

/// libcontainer does not say which mount it was.
fn with_refused(line: String, refused: &[String]) -> String {
    match refused.is_empty() || line.contains("cannot mount") {
        true => line,
        false => format!("{line}; the kernel refuses to mount {}", refused.join(", ")),
    }
}

/// Makes the pod, runs the guest in it, and answers with how the way out is.
///
/// # Errors
///
/// One line, when the pod or the session fails.
pub fn go_in(place: &Place, name: PodName) -> Result<(), Failure> {
    session::close_inherited();
    let paths = paths(place, name)?;
    let image = PodImage {
        reference: "(none: podspawn doctor)".into(),
        config: Default::default(),
        lowers: vec![empty_image(&paths)?],
        lease: None,
    };
    let project = Project {
        config: place.config.clone(),
        podfile: Podfile::default(),
        trouble: None,
    };
    let mode = Some(Mode::DestroyOnDisconnect);
    let map = namespace::map_of(&place.account)?;
    let spec = of_image(place, &project, mode, &paths, map, image)?;
    let attached = attach_or_launch(&paths, 0, || Ok::<_, std::io::Error>(spec))?;
    // Ends at once, for its input does.
    let action = Action::Program(vec![guest::PATH.into(), "sftp-server".into()]);
    services::wait(&paths, &attached.info, &action, false)?;
    let network = services::status(&paths).map_or_else(String::new, |status| status.network);
    let (shells, terminfo) = means(&place.config);
    let wanted = here(paths.name.clone(), action);
    let ended = session::run(&attached, &session_of(wanted, shells, terminfo.len()))?;
    match ended.how {
        Ending::Exited(0) => Ok(output::answer(&format!("{network}\n"))?),
        Ending::Exited(status) => Err(Failure::new(format!(
            "a program in it ended with status {status}"
        ))),
        Ending::Signaled(signal) => Err(Failure::new(format!(
            "a program in it was killed by signal {signal}"
        ))),
    }
}

/// In the storage of the pod, on the file system that layers are on.
fn empty_image(paths: &PodPaths) -> Result<PathBuf, Failure> {
    paths.open_storage()?;
    let dir = paths.storage().join("image");
    fs::DirBuilder::new().mode(0o755).create(&dir)?;
    // Whatever the umask.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Ends what is there still, and removes the pod's files, which belong to ids of the user's
/// namespace.
fn clear(place: &Place, paths: &PodPaths) -> Result<(), Failure> {
    stop(paths, true)?;
    // Without a namespace there was no pod, and the files are the user's.
    let entered = idmap::enter(&namespace::map_of(&place.account)?);
    let until = Instant::now() + PATIENCE;
    loop {
        match remove(paths, &[]) {
            // A supervisor that has closed its door is not gone yet.
            Err(ClearError::InUse) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(Failure::from(e).context(&paths.name)),
            Ok(()) => break,
        }
    }
    entered?;
    // The supervisor's last act is not its end; what is in the way then goes with the next pod.
    while !cgroup::is_gone(paths.name.as_str()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Judges.
#[must_use]
pub fn findings(tried: &Tried) -> Vec<Finding> {
    let what = "pod";
    match tried {
        Err(why) => vec![Finding::broken(
            what,
            why.clone(),
            "no pod can be made",
            remedy(why),
        )],
        Ok(network) => {
            let made = "one was made, a program ran in it, and it is gone again";
            vec![Finding::good(what, made), way_out(network)]
        }
    }
}

fn way_out(network: &str) -> Finding {
    let what = "network";
    match network.strip_prefix(DOWN) {
        None => Finding::good(what, network),
        Some(why) => Finding::broken(
            what,
            why,
            "pods reach nothing but their own loopback",
            "see /dev/net/tun and pasta; pasta wants an interface with a default route (ip route)",
        ),
    }
}

/// What to do, by a part of what podspawn, libcontainer or the kernel said. The first that fits.
const REMEDIES: [(&str, &str); 10] = [
    (
        "subordinate ids",
        "see subordinate ids, and newuidmap, newgidmap",
    ),
    (
        "user namespace",
        "see user namespaces; where that is as it should be, a security module or a container around this host forbids them",
    ),
    (
        "proc: ",
        "see what hides parts of /proc (findmnt --submounts /proc) and unmount it; in a container, start that with an unmasked one (docker run --security-opt systempaths=unconfined)",
    ),
    (
        "cgroup2",
        "boot a kernel with CONFIG_CGROUPS, and see that it is mounted: mount -t cgroup2 none /sys/fs/cgroup",
    ),
    (
        "sysfs: ",
        "see what hides parts of /sys (findmnt --submounts /sys) and unmount it",
    ),
    ("mqueue: ", "boot a kernel with CONFIG_POSIX_MQUEUE"),
    ("devpts: ", "boot a kernel with CONFIG_UNIX98_PTYS"),
    (
        "an overlay",
        "set storage.root to a local file system (ext4, xfs or btrfs)",
    ),
    (
        "executable on this host",
        "mount the file system of storage.root without noexec, or set storage.root to another one",
    ),
    (
        "filter of system calls",
        "boot a kernel with CONFIG_SECCOMP_FILTER",
    ),
];

fn remedy(why: &str) -> &'static str {
    let found = REMEDIES.iter().find(|(part, _)| why.contains(part));
    found.map_or(
        "see the other findings and the kernel's log (dmesg); if they say nothing, report it",
        |(_, remedy)| remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use podspawn_runtime::idmap::IdMapError;
    use podspawn_runtime::supervisor::LaunchError;

    fn broken(tried: Tried) -> (&'static str, String) {
        let found = findings(&tried);
        let bad: Vec<&Finding> = found.iter().filter(|f| f.state != State::Good).collect();
        assert_eq!(bad.len(), 1, "{found:?}");
        assert_eq!(bad[0].state, State::Broken);
        assert!(!bad[0].costs.is_empty());
        (bad[0].what, bad[0].fix.clone())
    }

    #[test]
    fn a_pod_that_was_there_is_well_and_its_network_tells() {
        for network in ["pasta", "none"] {
            let found = findings(&Ok(network.into()));
            assert!(found.iter().all(|f| f.state == State::Good), "{found:?}");
            assert_eq!(found[1].found, network);
        }
        let (what, fix) = broken(Ok("down: pasta ended".into()));
        assert_eq!(what, "network");
        assert!(fix.contains("/dev/net/tun"), "{fix}");
    }

    #[test]
    fn what_podspawn_says_leads_to_what_to_do() {
        let no = || std::io::Error::from_raw_os_error(1);
        let said = [
            (
                LaunchError::Namespaces(no()).to_string(),
                "see user namespaces",
            ),
            (IdMapError::Unshare(no()).to_string(), "see user namespaces"),
            (
                IdMapError::Refused {
                    program: "newuidmap",
                    message: String::new(),
                }
                .to_string(),
                "see subordinate ids",
            ),
            (
                "cannot mount /proc: Operation not permitted".into(),
                "unmask",
            ),
            (
                "cannot mount a cgroup2 file system on /sys/fs/cgroup: Device or resource busy"
                    .into(),
                "CONFIG_CGROUPS",
            ),
            (
                "cannot mount an overlay of 1 layers with upper /x: Invalid argument".into(),
                "storage.root",
            ),
            (
                with_refused("x".into(), &["sysfs: no".into(), "mqueue: no".into()]),
                "/sys",
            ),
            (
                with_refused("x".into(), &["mqueue: no".into()]),
                "POSIX_MQUEUE",
            ),
            (with_refused("x".into(), &[]), "dmesg"),
        ];
        for (why, what_to_do) in said {
            let (what, fix) = broken(Err(why.clone()));
            assert_eq!(what, "pod");
            assert!(fix.contains(what_to_do), "{why}: {fix}");
        }
    }
}
