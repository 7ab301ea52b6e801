//! A host with an sshd of root's, whose PAM configuration has the session module.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::client::{Output, Ssh, run};
use crate::support::host::{Host, free_port, make_key};
use crate::support::net::{Answerer, QUESTION, ask, body};
use crate::support::{setup, wait_for};

const SETTINGS: &str = include_str!("../../../scripts/lib/sshd_config.in");
const MATCH: &str = include_str!("../../../scripts/lib/sshd_match_module.in");

/// The lines of `/etc/pam.d/sshd`; `@MODULE@` is the module with its arguments.
pub const STACK: &str = "\
auth optional @MODULE@
@include common-auth
@include common-account
@include common-session
session required @MODULE@
";

/// How a host differs from the usual one.
pub struct Differences {
    pub stack: String,
    /// More arguments of the module.
    pub arguments: String,
    /// Instead of podspawn.
    pub helper: Option<PathBuf>,
    /// Instead of an image that is in the store.
    pub image: Option<&'static str>,
    pub config: &'static str,
    pub force: Option<String>,
}

impl Default for Differences {
    fn default() -> Self {
        Self {
            stack: STACK.into(),
            arguments: String::new(),
            helper: None,
            image: None,
            config: "session:\n  grace_period: 10s\n",
            force: None,
        }
    }
}

/// The host. Everything of it, a mount namespace too, ends when it is dropped.
pub struct RootHost {
    pub host: Host,
    pub user: &'static str,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl RootHost {
    /// The usual one.
    pub fn new() -> Self {
        Self::with(&Differences::default())
    }

    pub fn with(differences: &Differences) -> Self {
        let setup = setup::get();
        let root = setup.root.as_ref().expect("run by root");
        let user = root.user.as_str();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = setup.work.join(format!("r{number}"));
        for name in ["", "data", "files"] {
            fs::create_dir(dir.join(name)).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        chown(dir.join("data"), Some(root.uid), Some(root.gid)).unwrap();
        for key in ["host_key", "client_key"] {
            make_key(&dir.join(key), "ed25519", &[]);
        }
        fs::copy(dir.join("client_key.pub"), dir.join("authorized_keys")).unwrap();
        let image = differences.image.unwrap_or("podspawn-test/busybox:latest");
        let config = format!(
            "defaults:\n  image: {image}\nnetwork: none\nstorage:\n  root: {}/data/podspawn\n{}",
            dir.display(),
            differences.config
        );
        fs::write(dir.join("config.yaml"), config).unwrap();

        let podspawn = setup.stage.join("bin/podspawn");
        let module = format!(
            "{} group={user} helper={} config={}/config.yaml {}",
            setup.stage.join("bin/pam_podspawn.so").display(),
            differences.helper.as_ref().unwrap_or(&podspawn).display(),
            dir.display(),
            differences.arguments
        );
        let stack = differences.stack.replace("@MODULE@", &module);
        fs::write(dir.join("pam"), stack).unwrap();
        let force = differences.force.clone().unwrap_or_else(|| {
            format!(
                "{} --config {}/config.yaml spawn",
                podspawn.display(),
                dir.display()
            )
        });
        let block = MATCH.replace("Match all", &format!("Match User {user}"));
        let port = free_port();
        let text = format!("{SETTINGS}{block}")
            .replace("UsePAM no", "UsePAM yes")
            .replace("@PORT@", &port.to_string())
            .replace("@DIR@", dir.to_str().unwrap())
            .replace("@SETTINGS@", "")
            .replace("@FORCE@", &force);
        fs::write(dir.join("sshd_config"), text).unwrap();
        let key = fs::read_to_string(dir.join("host_key.pub")).unwrap();
        fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
        let sshd = start(&dir, port, root.uid);
        let new = Self {
            host: Host::adopt(dir, port, user, sshd),
            user,
        };
        if differences.image.is_none() {
            new.load("busybox");
        }
        new
    }

    /// Loads one of the made images, as `podspawn-test/NAME`.
    pub fn load(&self, image: &str) {
        let layout = setup::get().stage.join("images").join(image);
        let loaded = self.podspawn(["load", "--quiet", layout.to_str().unwrap()]);
        assert_eq!(loaded.code, Some(0), "{loaded}");
    }

    /// A command as a user, where sshd and its sessions see the file system.
    pub fn command_as(&self, user: &str, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--target", &self.host.sshd().to_string(), "--"])
            .args(["setpriv", "--reuid", user, "--regid", user, "--init-groups"])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .arg(format!("HOME={}", self.host.dir.join("data").display()))
            .arg(program);
        command
    }

    /// podspawn on the host, as the user.
    pub fn podspawn<const N: usize>(&self, arguments: [&str; N]) -> Output {
        let program = setup::get().stage.join("bin/podspawn");
        let mut command = self.command_as(self.user, program.as_os_str());
        command
            .arg("--config")
            .arg(self.host.dir.join("config.yaml"))
            .args(arguments);
        run(command, Vec::new(), Duration::from_secs(120))
    }

    /// ssh with options and no command.
    pub fn client(&self, arguments: &[&str]) -> Ssh<'_> {
        let mut client = self.host.login();
        for argument in arguments {
            client = client.option(*argument);
        }
        client
    }

    /// Starts ssh -N with these options.
    pub fn tunnel(&self, arguments: &[&str]) -> Tunnel {
        let mut command = self
            .client(&["-N", "-o", "ExitOnForwardFailure=yes"])
            .command();
        command.args(arguments);
        let log = fs::File::create(self.host.dir.join("tunnel.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Tunnel(command.spawn().unwrap())
    }

    /// What is reached by `-W` at this host and port.
    pub fn through(&self, destination: &str) -> String {
        let output = self
            .client(&["-W", destination])
            .input(QUESTION)
            .limit(60)
            .run();
        body(&output.stdout)
    }

    /// Starts a web server in the pod that answers "pod" on a port where the host has a decoy.
    pub fn serve(&self, decoy: &Answerer) {
        let port = decoy.port;
        let line = format!(
            "mkdir -p /tmp/www && echo pod >/tmp/www/index.html && httpd -p 127.0.0.1:{port} -h /tmp/www && \
             wget -qO- http://127.0.0.1:{port}/"
        );
        assert_eq!(self.host.ssh(line).run().line(), "pod");
        assert_eq!(ask(port), "host", "the decoy answers on the host");
    }
}

/// An ssh that runs until it is dropped.
pub struct Tunnel(pub Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts sshd in a mount namespace with its own PAM configuration and run directories.
fn start(dir: &Path, port: u16, uid: u32) -> Child {
    let script = "mount --bind \"$1/pam\" /etc/pam.d/sshd && \
        mount -t tmpfs -o \"mode=700,uid=$2\" none \"/run/user/$2\" && \
        exec /usr/sbin/sshd -D -e -f \"$1/sshd_config\"";
    let log = fs::File::create(dir.join("sshd.log")).unwrap();
    let mut sshd = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "-",
        ])
        .arg(dir)
        .arg(uid.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    wait_for("sshd starts", Duration::from_secs(20), || {
        assert!(sshd.try_wait().unwrap().is_none(), "sshd does not start");
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    sshd
}
