//! An ssh-agent of the client's side.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::{self, Ssh};
use super::host::Host;
use super::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// An ssh-agent with one key.
pub struct Agent {
    /// Where it listens.
    pub socket: PathBuf,
    child: Child,
}

impl Agent {
    /// Starts it beside what belongs to the host.
    pub fn start(host: &Host, name: &str) -> Self {
        // Sockets need a short path.
        Self::at(host, name, &host.dir.join(format!("{name}.sock")))
    }

    /// Starts it at this path.
    pub fn at(host: &Host, name: &str, socket: &Path) -> Self {
        let key = host.dir.join(format!("{name}.key"));
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(&key);
        assert!(command.status().unwrap().success());
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Its socket has a name before it listens.
        wait_for("the agent listens", LIMIT, || {
            UnixStream::connect(socket).is_ok()
        });
        let agent = Self {
            socket: socket.to_owned(),
            child,
        };
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", socket);
        assert!(add.status().unwrap().success());
        agent
    }

    /// What `ssh-add -l` says on the client's side.
    pub fn keys(&self) -> String {
        let mut list = Command::new("ssh-add");
        client::clean(&mut list);
        list.arg("-l").env("SSH_AUTH_SOCK", &self.socket);
        client::run(list, Vec::new(), LIMIT).line()
    }

    /// A command over ssh with this agent forwarded.
    pub fn ssh<'h>(&self, host: &'h Host, command: &str) -> Ssh<'h> {
        host.ssh(command)
            .option("-A")
            .env("SSH_AUTH_SOCK", self.socket.to_str().unwrap())
    }

    /// The same for `podspawn spawn` by hand, with `socket` as what sshd would have made.
    pub fn by_hand(host: &Host, socket: &Path, command: &str) -> Command {
        let mut spawn = host.podspawn(["spawn"]);
        spawn
            .env("SSH_ORIGINAL_COMMAND", command)
            .env("SSH_AUTH_SOCK", socket)
            .stdin(Stdio::null());
        spawn
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
