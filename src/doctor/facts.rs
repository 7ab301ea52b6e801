//! Gathering what `doctor` judges: files, sysctls, programs, and sshd's own answers.
//!
//! Nothing is changed but for a trial directory in the user's store and a trial pod, which are
//! removed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use podspawn_runtime::cgroup::Given;
use podspawn_runtime::idmap::Allotment;

use super::{cgroup, pod, store};
use crate::cli::Place;
use crate::config::{self, WithoutEffect};
use crate::exit::chain;
use crate::login_shell;
use crate::server::sshd::Sshd;
use crate::server::sshd_config::{self, Block};
use crate::server::{accounts, keys, pam, program, setup, trusted};

/// What is so on this host.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// `uname -r`.
    pub kernel: String,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which only Debian's kernels have.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    pub apparmor_restricts: Option<u64>,
    /// Whether an AppArmor profile of podspawn's is installed.
    pub apparmor_profile: bool,
    /// The profile that this program runs with; `unconfined`: none.
    pub apparmor_label: Option<String>,
    /// `newuidmap` and `newgidmap`: whether each may do its work, if it is there.
    pub id_mappers: [Option<bool>; 2],
    /// Mode of `/dev/net/tun`.
    pub tun: Option<u32>,
    /// `pasta`.
    pub pasta: Option<PathBuf>,
    /// `nft`.
    pub nft: Option<PathBuf>,
    /// Whether the cgroup hierarchy is version 2 alone.
    pub cgroup2: bool,
    /// Whether systemd runs this host.
    pub systemd: bool,
    /// The administrator's configuration: keys without effect, or what is wrong.
    pub config: Option<Result<Vec<String>, String>>,
    /// What only root can see.
    pub root: Option<RootFacts>,
}

/// What only root can see.
#[derive(Clone, Debug, Default)]
pub struct RootFacts {
    /// The program that sessions run, or why it is not to be trusted.
    pub program: Option<Result<PathBuf, String>>,
    /// sshd's answers, or why there are none.
    pub sshd: Option<Result<SshdFacts, String>>,
    /// The process that listens.
    pub listener: Option<i32>,
    /// What sshd's PAM stack says of the session module.
    pub stack: Option<pam::Stack>,
    /// The session module.
    pub module: Option<PathBuf>,
    /// Container users: name, login shell, whether it is podspawn, number of keys.
    pub users: Vec<(String, PathBuf, bool, usize)>,
}

/// What is in force for container users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshdFacts {
    /// What is not as the block wants it.
    pub differences: Vec<String>,
    /// Whether TCP forwarding is open.
    pub forwards: bool,
    /// `UsePAM`.
    pub uses_pam: bool,
    /// `AllowGroups`, `AllowUsers`, `DenyGroups`, `DenyUsers`, as far as given.
    pub who: Vec<String>,
}

impl HostFacts {
    /// Looks.
    #[must_use]
    pub fn gather(named: Option<&Path>) -> Self {
        Self {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            max_user_namespaces: sysctl("user/max_user_namespaces"),
            unprivileged_userns_clone: sysctl("kernel/unprivileged_userns_clone"),
            apparmor_restricts: sysctl("kernel/apparmor_restrict_unprivileged_userns"),
            apparmor_profile: Path::new("/etc/apparmor.d/podspawn").exists(),
            apparmor_label: apparmor_label(),
            id_mappers: ["newuidmap", "newgidmap"].map(may_map),
            tun: fs::metadata("/dev/net/tun").ok().map(|m| m.mode() & 0o777),
            pasta: program::find("pasta"),
            nft: program::find("nft"),
            cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            systemd: Path::new("/run/systemd/system").is_dir(),
            config: Some(configuration(named)),
            root: rustix::process::geteuid()
                .is_root()
                .then(|| RootFacts::gather(named)),
        }
    }
}

fn configuration(named: Option<&Path>) -> Result<Vec<String>, String> {
    let config = config::load_server(named).map_err(|e| e.to_string())?;
    let not_yet = config
        .unused()
        .iter()
        .filter(|key| key.why == WithoutEffect::NotYet);
    Ok(not_yet.map(|key| key.key.clone()).collect())
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Without the mode that follows the name: `podspawn (unconfined)`.
fn apparmor_label() -> Option<String> {
    let said = fs::read_to_string("/proc/self/attr/apparmor/current").ok()?;
    Some(said.split([' ', '\n']).next()?.to_owned())
}

/// Setuid root, or with a capability of its own, as some distributions have it.
fn may_map(name: &str) -> Option<bool> {
    let path = Path::new("/usr/bin").join(name);
    let stat = fs::metadata(&path).ok()?;
    let setuid = stat.uid() == 0 && stat.permissions().mode() & 0o4000 != 0;
    let mut buffer = [0u8; 64];
    let capable = rustix::fs::getxattr(&path, "security.capability", &mut buffer).is_ok();
    Some(setuid || capable)
}

impl RootFacts {
    fn gather(named: Option<&Path>) -> Self {
        let program = trusted::this_program().map_err(|f| f.line().to_owned());
        let key_dir = config::load_server(named).unwrap_or_default().key_dir;
        let sshd = Sshd::new(Path::new("/etc/ssh/sshd_config"));
        let answers = program.clone().and_then(|program| {
            SshdFacts::ask(&sshd, program, key_dir.clone()).map_err(|f| f.line().to_owned())
        });
        let stack = fs::read_to_string("/etc/pam.d/sshd").ok();
        let stack = stack
            .zip(program.as_ref().ok())
            .map(|(text, p)| pam::state(&text, p));
        let users = accounts::list()
            .unwrap_or_default()
            .into_iter()
            .map(|user| {
                let count = keys::read(&key_dir, &user.name).map_or(0, |keys| keys.len());
                let ours = login_shell::is_this_program(&user.shell);
                (user.name, user.shell, ours, count)
            });
        Self {
            users: users.collect(),
            program: Some(program),
            sshd: Some(answers),
            listener: sshd.listener().map(|pid| pid.as_raw_nonzero().get()),
            stack,
            module: setup::module(),
        }
    }
}

impl SshdFacts {
    fn ask(sshd: &Sshd, program: PathBuf, key_dir: PathBuf) -> Result<Self, crate::exit::Failure> {
        sshd.test()?;
        let output = sshd.in_force_for_members()?;
        let value = |keyword| sshd_config::in_force(&output, keyword);
        let forwards = value("allowtcpforwarding") != Some("no");
        let block = Block {
            program,
            key_dir,
            forwarding: forwards,
        };
        let who = output
            .lines()
            .filter(|line| {
                ["allowgroups ", "allowusers ", "denygroups ", "denyusers "]
                    .iter()
                    .any(|start| line.starts_with(start))
            })
            .map(str::to_owned);
        Ok(Self {
            differences: sshd_config::differences(&block, &output),
            forwards,
            uses_pam: value("usepam") == Some("yes"),
            who: who.collect(),
        })
    }
}

/// What is so for one user, as that user sees it.
#[derive(Clone, Debug, Default)]
pub struct UserFacts {
    /// Login name.
    pub name: String,
    /// Numbers of subordinate user and group ids.
    pub subids: [u64; 2],
    /// Whether a namespace with them could be made, and an overlay mounted at the store.
    pub overlay: Option<Result<(), String>>,
    /// Where the store is.
    pub store: PathBuf,
    /// The run directory, or why it cannot be used.
    pub run: Option<Result<PathBuf, String>>,
    /// Whether `/dev/net/tun` could be opened.
    pub tun: bool,
    /// Whether systemd keeps the user's manager without a login; `None` without systemd.
    pub lingers: Option<bool>,
    /// The limits that a process of theirs got, and by what.
    pub limits: Option<Result<Given, String>>,
    /// Whether a pod could be made; `None`: what it needs is known not to be there.
    pub pod: Option<pod::Tried>,
    /// What there is to say of their store.
    pub health: Option<store::Health>,
}

impl UserFacts {
    /// Looks, and tries.
    #[must_use]
    pub fn gather(place: &Place, named: Option<&Path>) -> Self {
        let account = &place.account;
        let subids = ["/etc/subuid", "/etc/subgid"].map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            Allotment::parse(&text, &account.name, account.uid).len()
        });
        let runtime = place.directories.runtime.as_deref();
        let run = podspawn_runtime::pod::RunDir::of_user(runtime, account.uid);
        let tun = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun");
        let run = run.map(|run| run.path().to_owned()).map_err(|e| chain(&e));
        let overlay = try_overlay(&place.root);
        // Not to say the same thing twice.
        let pod = (run.is_ok() && overlay.is_ok()).then(|| pod::tried(|| podspawn(named)));
        Self {
            name: account.name.clone(),
            subids,
            overlay: Some(overlay),
            store: place.root.clone(),
            run: Some(run),
            pod,
            tun: tun.is_ok(),
            lingers: Path::new("/run/systemd/system").is_dir().then(|| {
                Path::new("/var/lib/systemd/linger")
                    .join(&account.name)
                    .exists()
            }),
            limits: Some(cgroup::tried(podspawn(named))),
            health: Some(store::check(podspawn(named))),
        }
    }
}

/// This program once more, for what a process has to try that ends then.
pub fn podspawn(named: Option<&Path>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::null());
    if let Some(named) = named {
        command.arg("--config").arg(named);
    }
    command
}

/// In a process of its own, which ends with its namespaces.
fn try_overlay(root: &Path) -> Result<(), String> {
    let done = podspawn(None)
        .args(["doctor", "--try-overlay"])
        .arg(root)
        .output()
        .map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    Err(super::said(&done.stderr))
}
