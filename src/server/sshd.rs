//! The sshd of this host: whether it takes its configuration, what is in force
//! for whom, and making it read it anew.
//!
//! Everything is asked of sshd itself. A reload is a hang-up to the process that
//! listens: it starts itself anew, and the sessions it has started go on.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Group;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{GROUP, program, sshd_config};
use crate::exit::Failure;

/// sshd with one configuration file.
#[derive(Clone, Debug)]
pub struct Sshd {
    config: PathBuf,
}

/// How a new configuration reached sshd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// By this unit of systemd.
    Unit(String),
    /// By a signal to this process.
    Process(i32),
    /// Nothing listens; the next sshd reads it.
    NotRunning,
}

/// A user that exists for one question only.
const NOBODY_YET: &str = "podspawn-check";

impl Sshd {
    /// The one that reads `config`.
    #[must_use]
    pub fn new(config: &Path) -> Self {
        Self {
            config: config.to_owned(),
        }
    }

    /// Its main configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Has sshd check its configuration.
    ///
    /// # Errors
    ///
    /// What sshd says is wrong.
    pub fn test(&self) -> Result<(), Failure> {
        separation_directory()?;
        let done = program::run(
            "sshd",
            ["-t".as_ref(), "-f".as_ref(), self.config.as_os_str()],
        )?;
        if done.success {
            Ok(())
        } else {
            Err(Failure::new(format!("sshd -t: {}", done.said)))
        }
    }

    /// What is in force for a login of this user from this host, as `sshd -T` says it.
    ///
    /// # Errors
    ///
    /// When sshd does not say.
    pub fn in_force_for(&self, user: &str) -> Result<String, Failure> {
        separation_directory()?;
        let whom = connection(user);
        let args = [
            "-T".as_ref(),
            "-f".as_ref(),
            self.config.as_os_str(),
            "-C".as_ref(),
            whom.as_ref(),
        ];
        said(program::run("sshd", args)?)
    }

    /// What is in force for a container user, whether there is one yet or not.
    ///
    /// # Errors
    ///
    /// When there is no group of container users, or sshd does not say.
    pub fn in_force_for_members(&self) -> Result<String, Failure> {
        let group = Group::from_name(GROUP)
            .ok()
            .flatten()
            .ok_or_else(|| Failure::new(format!("there is no group {GROUP}")))?;
        if let Some(member) = group.mem.first() {
            return self.in_force_for(member);
        }
        separation_directory()?;
        // sshd looks its users up, so the question needs an entry: one that this sshd alone sees.
        let dir = PathBuf::from(format!("/run/podspawn-check.{}", std::process::id()));
        let io = |e: std::io::Error| Failure::new(format!("{}: {e}", dir.display()));
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(io)?;
        let asked = fs::read_to_string("/etc/passwd")
            .and_then(|mut text| {
                if !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&format!(
                    "{NOBODY_YET}:*:64999:{}::/:/bin/false\n",
                    group.gid
                ));
                fs::write(dir.join("passwd"), text)
            })
            .map_err(io)
            .and_then(|()| self.ask_with(&dir.join("passwd")));
        let _ = fs::remove_dir_all(&dir);
        asked
    }

    fn ask_with(&self, passwd: &Path) -> Result<String, Failure> {
        let sshd = program::find("sshd").ok_or_else(|| Failure::new("sshd is not installed"))?;
        let script = "mount --bind \"$1\" /etc/passwd && exec \"$2\" -T -f \"$3\" -C \"$4\"";
        let whom = connection(NOBODY_YET);
        let args = [
            "--mount".as_ref(),
            "--propagation".as_ref(),
            "private".as_ref(),
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
            "sh".as_ref(),
            passwd.as_os_str(),
            sshd.as_os_str(),
            self.config.as_os_str(),
            whom.as_ref(),
        ];
        said(program::run("unshare", args)?)
    }

    /// The process that listens, by sshd's own pid file.
    #[must_use]
    pub fn listener(&self) -> Option<Pid> {
        let output = self.in_force_for("root").ok()?;
        let file = sshd_config::in_force(&output, "pidfile")?;
        let pid = Pid::from_raw(fs::read_to_string(file).ok()?.trim().parse().ok()?)?;
        is_sshd(pid).then_some(pid)
    }

    /// Has the running sshd read its configuration anew; by `unit` of systemd, if one is named.
    ///
    /// # Errors
    ///
    /// When it could not be told, or did not survive it.
    pub fn reload(&self, unit: Option<&str>) -> Result<Reloaded, Failure> {
        if let Some(unit) = unit {
            program::must("systemctl", ["reload", unit])?;
            return Ok(Reloaded::Unit(unit.to_owned()));
        }
        if let Some(pid) = self.listener() {
            kill_process(pid, Signal::HUP)
                .map_err(|e| Failure::new(format!("cannot signal sshd: {e}")))?;
            // It starts itself anew under the same number.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(50));
                if test_kill_process(pid).is_err() {
                    return Err(Failure::new(
                        "sshd ended when it was told to reload; start it",
                    ));
                }
            }
            return Ok(Reloaded::Process(pid.as_raw_nonzero().get()));
        }
        if Path::new("/run/systemd/system").is_dir() {
            for unit in ["ssh.service", "sshd.service"] {
                if program::run("systemctl", ["is-active", "--quiet", unit])?.success {
                    program::must("systemctl", ["reload", unit])?;
                    return Ok(Reloaded::Unit(unit.to_owned()));
                }
            }
        }
        Ok(Reloaded::NotRunning)
    }
}

fn connection(user: &str) -> String {
    format!("user={user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22")
}

fn said(done: program::Done) -> Result<String, Failure> {
    if done.success {
        Ok(done.output)
    } else {
        Err(Failure::new(format!("sshd -T: {}", done.said)))
    }
}

fn is_sshd(pid: Pid) -> bool {
    let exe = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    // An upgraded sshd is "(deleted)" until it starts itself anew.
    exe.is_ok_and(|exe| {
        exe.to_string_lossy()
            .trim_end_matches(" (deleted)")
            .ends_with("/sshd")
    })
}

/// sshd refuses to check anything without this directory, which systemd makes only
/// while the service runs.
fn separation_directory() -> Result<(), Failure> {
    let made = fs::DirBuilder::new().mode(0o755).create("/run/sshd");
    match made {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("cannot make /run/sshd: {e}")))
        }
        _ => Ok(()),
    }
}
