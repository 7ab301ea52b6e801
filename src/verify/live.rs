//! Logging in to a pod of the image as clients do: a real sshd, run for one
//! connection by the client (`sshd -i` as ProxyCommand), with keys made for it.
//!
//! Runs in `podspawn verify-image`; everything that it writes is in one private
//! directory, which goes with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{Finding, State};
use crate::own_sshd;

/// How long one attempt may take; the first makes the pod.
const LIMIT: Duration = Duration::from_secs(120);

/// What is moved there and back, in bytes.
const SIZE: usize = 300_000;

/// The name that the client knows the throw-away host key by.
const ALIAS: &str = "podspawn-verify";

/// A way to log in.
#[derive(Debug)]
pub struct Login<'a> {
    /// A private, empty directory.
    pub dir: &'a Path,
    /// What sshd is to run for every session, a command line for `sh`.
    pub forced: String,
    /// Variables that it is to have.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// The user.
    pub user: &'a str,
}

/// Tries everything; of what the image does not have, says so.
///
/// # Errors
///
/// When keys or files cannot be made.
pub fn attempts(
    login: &Login<'_>,
    has_shell: bool,
    has_rsync: bool,
) -> std::io::Result<Vec<Finding>> {
    let Some(sshd) = program("sshd") else {
        return Ok(vec![skipped("ssh session", "the host has no sshd")]);
    };
    for tool in ["ssh", "ssh-keygen", "sftp", "scp"] {
        if program(tool).is_none() {
            return Ok(vec![skipped(
                "ssh session",
                &format!("the host has no {tool}"),
            )]);
        }
    }
    login.prepare(&sshd)?;
    let sent = login.dir.join("sent");
    // Nothing that a wrong mode, such as text, would leave as it is.
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n * 7 + n / 251) as u8).collect();
    fs::write(&sent, bytes)?;
    let no_shell = |name| skipped(name, "the image has no shell");
    let mut findings = Vec::new();
    findings.push(if has_shell {
        login.command()
    } else {
        no_shell("ssh session")
    });
    findings.push(login.sftp(&sent));
    findings.push(login.scp(&sent));
    findings.push(match (has_rsync, program("rsync")) {
        (false, _) => skipped("rsync round trip", "the image has no rsync"),
        (true, None) => skipped("rsync round trip", "the host has no rsync"),
        (true, Some(_)) => login.rsync(&sent),
    });
    findings.push(if has_shell {
        login.terminal()
    } else {
        no_shell("terminal")
    });
    Ok(findings)
}

fn finding(name: &'static str, result: Result<(), String>) -> Finding {
    let (state, note) = match result {
        Ok(()) => (State::Present, "works".to_owned()),
        Err(why) => (State::Missing, why),
    };
    Finding {
        name,
        state,
        needed: true,
        note,
        fix: None,
    }
}

fn skipped(name: &'static str, why: &str) -> Finding {
    Finding {
        name,
        state: State::Skipped,
        needed: true,
        note: why.to_owned(),
        fix: None,
    }
}

/// Where a program of the host is; sshd is in nobody's path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

impl Login<'_> {
    fn prepare(&self, sshd: &Path) -> std::io::Result<()> {
        for key in ["host", "client"] {
            let made = own_sshd::keygen(&self.dir.join(key), "podspawn-verify").status()?;
            if !made.success() {
                return Err(std::io::Error::other("ssh-keygen made no key"));
            }
        }
        let public = fs::read_to_string(self.dir.join("host.pub"))?;
        fs::write(self.dir.join("known"), format!("{ALIAS} {public}"))?;
        let dir = self.dir.display();
        let environment: String = self
            .environment
            .iter()
            .map(|(name, value)| format!(" {name}={}", value.display()))
            .collect();
        let (host_key, keys) = (self.dir.join("host"), self.dir.join("client.pub"));
        let mut config = own_sshd::config(&host_key, &keys, &self.forced);
        config.push_str("AllowTcpForwarding no\nX11Forwarding no\nAllowAgentForwarding no\n");
        if !environment.is_empty() {
            config.push_str(&format!("SetEnv{environment}\n"));
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.dir.join("sshd_config"))?;
        file.write_all(config.as_bytes())?;
        let proxy = format!(
            "#!/bin/sh\nexec {} -i -e -f {dir}/sshd_config 2>>{dir}/sshd.log\n",
            sshd.display()
        );
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(self.dir.join("proxy"))?;
        file.write_all(proxy.as_bytes())
    }

    fn options(&self) -> Vec<OsString> {
        let dir = self.dir.display();
        let options = [
            "BatchMode=yes".into(),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            "GlobalKnownHostsFile=none".into(),
            "StrictHostKeyChecking=yes".into(),
            "LogLevel=ERROR".into(),
            format!("HostKeyAlias={ALIAS}"),
            format!("UserKnownHostsFile={dir}/known"),
            format!("IdentityFile={dir}/client"),
            format!("ProxyCommand={dir}/proxy"),
            format!("User={}", self.user),
        ];
        let mut words: Vec<OsString> = vec!["-F".into(), "none".into()];
        for option in options {
            words.extend(["-o".into(), option.into()]);
        }
        words
    }

    fn ssh(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.options());
        command.args(words);
        command
    }

    fn command(&self) -> Finding {
        let said = self.run("ssh", self.ssh(&[ALIAS, "echo here; exit 7"]));
        finding(
            "ssh session",
            said.and_then(|said| match (said.status.code(), said.output.as_str()) {
                (Some(7), "here\n") => Ok(()),
                _ => Err(said.complaint()),
            }),
        )
    }

    fn terminal(&self) -> Finding {
        let said = self.run(
            "ssh",
            self.ssh(&["-tt", ALIAS, "test -t 0 && echo a terminal"]),
        );
        match said {
            Ok(said) if said.complaint().contains("PTY allocation request failed") => skipped(
                "terminal",
                "an sshd that is not root gets no terminals on this host",
            ),
            said => finding(
                "terminal",
                said.and_then(|said| match said.output.contains("a terminal") {
                    true => Ok(()),
                    false => Err(said.complaint()),
                }),
            ),
        }
    }

    fn sftp(&self, sent: &Path) -> Finding {
        let (batch, back) = (self.dir.join("batch"), self.dir.join("by-sftp"));
        let lines = format!(
            "put {0} podspawn-verify\nget podspawn-verify {1}\nrm podspawn-verify\n",
            sent.display(),
            back.display()
        );
        let mut command = Command::new("sftp");
        command
            .args(["-q", "-b"])
            .arg(&batch)
            .args(self.options())
            .arg(ALIAS);
        let result = fs::write(&batch, lines).map_err(|e| e.to_string());
        finding(
            "sftp round trip",
            result.and_then(|()| self.moved("sftp", vec![command], sent, &back)),
        )
    }

    fn scp(&self, sent: &Path) -> Finding {
        let back = self.dir.join("by-scp");
        let remote = format!("{ALIAS}:podspawn-verify");
        let mut there = Command::new("scp");
        there.arg("-q").args(self.options()).arg(sent).arg(&remote);
        let mut and_back = Command::new("scp");
        and_back
            .arg("-q")
            .args(self.options())
            .arg(&remote)
            .arg(&back);
        finding(
            "scp round trip",
            self.moved("scp", vec![there, and_back], sent, &back),
        )
    }

    fn rsync(&self, sent: &Path) -> Finding {
        let back = self.dir.join("by-rsync");
        let remote = format!("{ALIAS}:podspawn-verify");
        // rsync splits this at blanks; there are none in what it is made of.
        let shell: Vec<String> = self
            .options()
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        let shell = format!("ssh {}", shell.join(" "));
        let with = |from: &Path, to: &Path| {
            let mut command = Command::new("rsync");
            command.arg("-e").arg(&shell).arg(from).arg(to);
            command
        };
        let commands = vec![
            with(sent, Path::new(&remote)),
            with(Path::new(&remote), &back),
        ];
        finding(
            "rsync round trip",
            self.moved("rsync", commands, sent, &back),
        )
    }

    fn moved(
        &self,
        name: &str,
        commands: Vec<Command>,
        sent: &Path,
        back: &Path,
    ) -> Result<(), String> {
        for command in commands {
            let said = self.run(name, command)?;
            if !said.status.success() {
                return Err(said.complaint());
            }
        }
        match (fs::read(sent), fs::read(back)) {
            (Ok(sent), Ok(back)) if sent == back => Ok(()),
            _ => Err("what came back is not what was sent".into()),
        }
    }

    fn run(&self, name: &str, mut command: Command) -> Result<Said, String> {
        let (out, errors) = (self.dir.join("out"), self.dir.join("errors"));
        let file = |path: &Path| File::create(path).map_err(|e| e.to_string());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file(&out)?)
            .stderr(file(&errors)?)
            .spawn()
            .map_err(|e| format!("cannot run {name}: {e}"))?;
        let end = Instant::now() + LIMIT;
        let status = loop {
            match child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("{name} did not end within {} s", LIMIT.as_secs()));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let text =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Ok(Said {
            status,
            output: text(&out),
            errors: text(&errors),
        })
    }
}

/// How a client ended.
struct Said {
    status: ExitStatus,
    output: String,
    errors: String,
}

impl Said {
    /// What to show of it: its last words.
    fn complaint(&self) -> String {
        let last = self.errors.lines().rfind(|line| !line.trim().is_empty());
        last.map_or_else(|| self.status.to_string(), |line| line.trim().to_owned())
    }
}
