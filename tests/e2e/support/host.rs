//! A host that a user logs in to: an sshd of its own, its own store, its own pods.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::Signal;

use super::client::{self, Output, Ssh};
use super::process::{self, Process};
use super::{setup, wait_for};

const SETTINGS: &str = include_str!("../../../scripts/lib/sshd_config.in");
const MATCH: &str = include_str!("../../../scripts/lib/sshd_match.in");

/// One host. Dropping it ends its sshd and its pods.
pub struct Host {
    /// Everything that belongs to it lies here.
    pub dir: PathBuf,
    pub port: u16,
    pub user: String,
    sshd: Mutex<Option<Child>>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);
type Shared = HashMap<String, Arc<OnceLock<Arc<Host>>>>;
static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

/// Ends the hosts that tests shared.
pub fn end_shared() {
    SHARED.lock().unwrap().take();
}

fn shared(name: &str, make: impl FnOnce() -> Host) -> Arc<Host> {
    let slot = SHARED
        .lock()
        .unwrap()
        .get_or_insert_default()
        .entry(name.to_owned())
        .or_default()
        .clone();
    // Outside the lock: the making of one host must not hold up the others.
    slot.get_or_init(|| Arc::new(make())).clone()
}

impl Host {
    /// An sshd without a forced command, to compare with.
    pub fn plain() -> Arc<Self> {
        shared("plain", || Self::make("", None))
    }

    /// The one host of this image for tests that leave its pod as they found it.
    pub fn shared(image: &str) -> Arc<Self> {
        // What one session leaves for the next outlives a slow client.
        let config = "session:\n  grace_period: 10m\n";
        shared(image, || Self::with_config(image, config))
    }

    /// A fresh host whose store has `image`.
    pub fn with_image(image: &str) -> Self {
        Self::with_config(image, "session:\n  grace_period: 10s\n")
    }

    /// The same, with these lines of configuration too.
    pub fn with_config(image: &str, config: &str) -> Self {
        let reference = Self::reference(image);
        let host = Self::make(&reference, Some(config));
        let pulled = host.run(["pull", &reference]);
        assert_eq!(pulled.code, Some(0), "podspawn pull {reference}: {pulled}");
        host
    }

    /// The same, for a host that reaches no registry.
    pub fn with_loaded(image: &str, config: &str) -> Self {
        let host = Self::make(&format!("podspawn-test/{image}"), Some(config));
        host.load(image);
        host
    }

    /// Loads one more of the made images, as `podspawn-test/NAME`.
    pub fn load(&self, image: &str) {
        let layout = setup::get().stage.join("images").join(image);
        let loaded = self.run(["load".as_ref(), layout.as_os_str()]);
        assert_eq!(loaded.code, Some(0), "podspawn load {image}: {loaded}");
    }

    /// Makes this the Podfile of the pods called `default`.
    pub fn podfile(&self, text: &str) -> PathBuf {
        let path = self.dir.join("podfile.yaml");
        fs::write(&path, text).unwrap();
        let list = format!("default: {{podfile: {}}}\n", path.display());
        fs::write(self.dir.join("projects.yaml"), list).unwrap();
        path
    }

    /// A fresh host with an empty store, where new pods want the image `reference`.
    pub fn empty(reference: &str) -> Self {
        Self::make(reference, Some("session:\n  grace_period: 10s\n"))
    }

    /// The same host when its administrator has installed nothing for podspawn.
    pub fn uninstalled(self) -> Self {
        Self::restarted(self, &[("Match all", "Match User nobody-at-all")])
    }

    /// Like `with_image`, its sshd calling the sftp subsystem otherwise.
    pub fn with_subsystem(image: &str, command: &str) -> Self {
        let usual = "Subsystem sftp /usr/lib/openssh/sftp-server";
        Self::restarted(
            Self::with_image(image),
            &[(usual, &format!("Subsystem sftp {command}"))],
        )
    }

    /// Like `with_config`, its sshd with these lines in place of `UsePAM no`.
    pub fn with_config_and_sshd(image: &str, config: &str, lines: &str) -> Self {
        Self::restarted(Self::with_config(image, config), &[("UsePAM no", lines)])
    }

    /// Like `with_image`, for clients that know RSA alone: their key is `client_rsa`.
    pub fn with_rsa(image: &str) -> Self {
        let host = Self::with_image(image);
        for key in ["host_rsa", "client_rsa"] {
            make_key(&host.dir.join(key), "rsa", &["-m", "PEM"]);
        }
        let public = fs::read_to_string(host.dir.join("client_rsa.pub")).unwrap();
        let all = fs::read_to_string(host.dir.join("authorized_keys")).unwrap() + &public;
        fs::write(host.dir.join("authorized_keys"), all).unwrap();
        let more = format!(
            "HostKey {}\nHostKeyAlgorithms +ssh-rsa\nPubkeyAcceptedAlgorithms +ssh-rsa\nUsePAM no",
            host.dir.join("host_rsa").display()
        );
        Self::restarted(host, &[("UsePAM no", &more)])
    }

    /// One that is run otherwise: everything of it is in `dir`, as for the others.
    pub fn adopt(dir: PathBuf, port: u16, user: &str, sshd: Child) -> Self {
        Self {
            dir,
            port,
            user: user.to_owned(),
            sshd: Mutex::new(Some(sshd)),
        }
    }

    /// Like `with_image`, with changes to sshd's configuration.
    pub fn with_sshd(image: &str, changes: &[(&str, &str)]) -> Self {
        Self::restarted(Self::with_image(image), changes)
    }

    /// Starts the sshd anew with another configuration.
    fn restarted(host: Self, changes: &[(&str, &str)]) -> Self {
        let path = host.dir.join("sshd_config");
        let mut text = fs::read_to_string(&path).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, to);
        }
        fs::write(&path, text).unwrap();
        host.stop_sshd();
        assert!(host.start_sshd(), "sshd does not start: {}", host.log());
        host
    }

    fn make(image: &str, config: Option<&str>) -> Self {
        let setup = setup::get();
        let dir = setup
            .work
            .join(format!("h{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        for name in ["", "data", "config", "run", "files"] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(dir.join(name))
                .unwrap();
        }
        for key in ["host_key", "client_key"] {
            make_key(&dir.join(key), "ed25519", &[]);
        }
        fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys")).unwrap();
        let user = client::local("id", ["-un"]).line();
        let mut host = Self {
            dir,
            port: 0,
            user,
            sshd: Mutex::new(None),
        };
        if let Some(config) = config {
            // Only the tests of the network have one: others would see each other's load.
            let network = match setup.outside {
                Some(_) => "",
                None => "network: none\n",
            };
            host.configure(&format!("defaults:\n  image: {image}\n{config}\n{network}"));
        }
        // Another process may take the port between the choice and sshd's bind.
        for _ in 0..5 {
            host.port = free_port();
            if host.start(config.is_some()) {
                return host;
            }
        }
        panic!(
            "sshd does not start: {}",
            fs::read_to_string(host.dir.join("sshd.log")).unwrap_or_default()
        );
    }

    /// Replaces the configuration.
    pub fn configure(&self, text: &str) {
        fs::write(self.dir.join("config.yaml"), text).unwrap();
    }

    fn start(&self, forced: bool) -> bool {
        let dir = self.dir.to_str().unwrap();
        let host_key = fs::read_to_string(self.dir.join("host_key.pub")).unwrap();
        fs::write(
            self.dir.join("known_hosts"),
            format!("[127.0.0.1]:{} {host_key}", self.port),
        )
        .unwrap();
        let environment: Vec<String> = self
            .environment()
            .iter()
            .map(|(name, value)| format!("{name}={}", value.display()))
            .collect();
        let mut text = SETTINGS.to_owned();
        if forced {
            text.push_str(MATCH);
        }
        let program = setup::get().stage.join("bin/podspawn");
        let text = text
            .replace("@PORT@", &self.port.to_string())
            .replace("@DIR@", dir)
            .replace("@SETTINGS@", &format!("SetEnv {}", environment.join(" ")))
            .replace(
                "@FORCE@",
                &format!("{} --config {dir}/config.yaml spawn", program.display()),
            );
        fs::write(self.dir.join("sshd_config"), text).unwrap();
        self.start_sshd()
    }

    /// Starts sshd with the configuration as it is; false when it ends at once.
    fn start_sshd(&self) -> bool {
        let log = fs::File::create(self.dir.join("sshd.log")).unwrap();
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
        let program = program
            .iter()
            .find(|path| Path::new(path).exists())
            .expect("sshd is installed");
        let mut sshd = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(self.dir.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut up = false;
        wait_for("sshd starts or ends", Duration::from_secs(20), || {
            up = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            up || sshd.try_wait().unwrap().is_some()
        });
        if sshd.try_wait().unwrap().is_some() {
            return false;
        }
        *self.sshd.lock().unwrap() = Some(sshd);
        up
    }

    fn stop_sshd(&self) {
        let started = self.sshd.lock().unwrap().take();
        if let Some(mut sshd) = started {
            let pid = i32::try_from(sshd.id()).unwrap();
            process::descendants(pid).iter().for_each(Process::kill);
            process::signal(pid, Signal::TERM);
            let _ = sshd.wait();
        }
    }

    /// What tells podspawn where its directories are.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("XDG_DATA_HOME", self.dir.join("data")),
            ("XDG_CONFIG_HOME", self.dir.join("config")),
            ("XDG_RUNTIME_DIR", self.dir.join("run")),
        ]
    }

    /// The sshd that listens.
    pub fn sshd(&self) -> i32 {
        let sshd = self.sshd.lock().unwrap();
        i32::try_from(sshd.as_ref().expect("sshd runs").id()).unwrap()
    }

    /// A client's command, to be run by ssh on this host.
    pub fn ssh(&self, command: impl AsRef<OsStr>) -> Ssh<'_> {
        Ssh::new(self, Some(command.as_ref()))
    }

    /// A login without a command.
    pub fn login(&self) -> Ssh<'_> {
        Ssh::new(self, None)
    }

    /// podspawn on the host, as its user.
    pub fn podspawn<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(setup::get().stage.join("bin/podspawn"));
        command
            .arg("--config")
            .arg(self.dir.join("config.yaml"))
            .args(arguments);
        client::clean(&mut command);
        command.envs(self.environment());
        command
    }

    /// Runs podspawn on the host to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        client::run(
            self.podspawn(arguments),
            Vec::new(),
            Duration::from_secs(300),
        )
    }

    /// One of the made images, at the registry.
    pub fn reference(image: &str) -> String {
        format!("{}/podspawn/{image}:1", setup::get().registry)
    }

    /// Where podspawn keeps images and pods.
    pub fn storage(&self) -> PathBuf {
        self.dir.join("data/podspawn")
    }

    /// The processes of this host's pods: those that see a mount from its storage.
    pub fn pod_processes(&self) -> Vec<Process> {
        let storage = self.storage();
        process::all()
            .into_iter()
            .filter(|process| process.mounts_from(&storage))
            .collect()
    }

    /// Process 1 of each pod.
    pub fn supervisors(&self) -> Vec<Process> {
        let mut found = self.pod_processes();
        found.retain(|process| process.name == "podspawn-pod");
        // Not what it forked.
        let all = found.clone();
        found.retain(|process| all.iter().all(|other| other.pid != process.parent));
        found
    }

    /// Processes of sshd's, below the one that listens.
    pub fn sshd_children(&self) -> Vec<Process> {
        let mut found = process::descendants(self.sshd());
        found.retain(|process| process.command.starts_with("sshd"));
        found
    }

    /// The `podspawn spawn` of each session.
    pub fn sessions(&self) -> Vec<Process> {
        let mut found = process::descendants(self.sshd());
        // The user's name may say podspawn too, and so their sshd; the first session has
        // the supervisor below it.
        found.retain(|process| {
            process.command.ends_with(" spawn")
                && !process.command.starts_with("sshd")
                && process.name != "podspawn-pod"
        });
        found
    }

    /// Waits until no process of any pod is left, and with them no mount or device.
    #[track_caller]
    pub fn wait_until_empty(&self, limit: Duration) {
        wait_for("every process of the pod has ended", limit, || {
            self.pod_processes().is_empty()
        });
        let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !own.contains(self.storage().to_str().unwrap()),
            "a mount was left: {own}"
        );
    }

    /// The supervisors' logs, for failures.
    pub fn log(&self) -> String {
        let mut text = fs::read_to_string(self.dir.join("sshd.log")).unwrap_or_default();
        for pod in fs::read_dir(self.dir.join("run/podspawn"))
            .into_iter()
            .flatten()
            .flatten()
        {
            text.push_str(&fs::read_to_string(pod.path().join("log")).unwrap_or_default());
        }
        text
    }

    /// A directory of the host's own for the files of a client.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop_sshd();
        for left in self.pod_processes() {
            left.kill();
        }
        if std::thread::panicking() {
            super::say(&format!("log of {}:\n{}", self.dir.display(), self.log()));
            return;
        }
        remove(&self.dir);
    }
}

/// Removes a tree in which some files belong to subordinate ids.
fn remove(dir: &Path) {
    let mapped = ["--user", "--map-auto", "--map-root-user", "rm", "-rf"];
    if fs::remove_dir_all(dir).is_err() {
        // What is left goes with the stage.
        let _ = Command::new("unshare")
            .args(mapped)
            .arg(dir)
            .stderr(Stdio::null())
            .status();
    }
}

pub fn make_key(path: &Path, kind: &str, more: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", kind, "-N", "", "-C", "podspawn"])
        .args(more)
        .arg("-f")
        .arg(path);
    assert!(command.status().unwrap().success(), "ssh-keygen failed");
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().port()
}

/// Writes an executable file.
pub fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
