//! Setting a host up for container users, and undoing it.
//!
//! What holds true afterwards: sshd takes its configuration, the block is in
//! force for container users as sshd itself sees it, and nothing has changed for
//! anybody else. If any of that is not so, everything is as it was before.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::files::{self, Applied, Change};
use super::pam::{self, Stack};
use super::sshd::{Reloaded, Sshd};
use super::sshd_config::{self, Block};
use super::{GROUP, accounts, program};
use crate::exit::Failure;

const PAM: &str = "/etc/pam.d/sshd";
const BACKUPS: &str = "/var/lib/podspawn/backups";

/// Where distributions keep PAM's modules.
const MODULE_DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security",
    "/lib/x86_64-linux-gnu/security",
    "/usr/lib64/security",
    "/lib64/security",
    "/usr/lib/security",
];

/// What is wanted.
#[derive(Debug)]
pub struct Setup {
    /// sshd and its configuration.
    pub sshd: Sshd,
    /// The unit of systemd to reload, if one was named.
    pub unit: Option<String>,
    /// The podspawn that sessions are to run.
    pub program: PathBuf,
    /// Directory of public keys.
    pub key_dir: PathBuf,
    /// Whether the session module is to be used; `None`: as it is.
    pub forwarding: Option<bool>,
}

/// What a setup would do, or has done: lines for a person.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<String>);

impl Setup {
    /// What would be changed.
    ///
    /// # Errors
    ///
    /// When it could not be.
    pub fn plan(&self, remove: bool) -> Result<Report, Failure> {
        self.sshd.test().map_err(before)?;
        let mut report = Report::default();
        let changes = if remove {
            nobody_left()?;
            files::pending(self.removal()?)?
        } else {
            if group().is_none() {
                report.0.push(format!("would add the group {GROUP}"));
            }
            files::pending(self.installation()?.1)?
        };
        for Change { path, text } in &changes {
            report.0.push(match text {
                None => format!("would remove {}", path.display()),
                Some(text) => format!("would write {}:\n{}", path.display(), text.trim_end()),
            });
        }
        if remove && group().is_some() {
            report.0.push(format!("would remove the group {GROUP}"));
        }
        if !changes.is_empty() {
            report.0.push("would reload sshd".to_owned());
        }
        Ok(report)
    }

    /// Sets up.
    ///
    /// # Errors
    ///
    /// When a check fails: everything is as it was then.
    pub fn install(&self) -> Result<Report, Failure> {
        self.sshd.test().map_err(before)?;
        let (block, changes) = self.installation()?;
        let mut report = Report::default();
        let made_group = group().is_none();
        if made_group {
            program::must("groupadd", ["--system", GROUP])?;
            report.0.push(format!("added the group {GROUP}"));
        }
        let done = self.change(changes, &mut report, || {
            let differences = sshd_config::differences(&block, &self.sshd.in_force_for_members()?);
            if differences.is_empty() {
                return Ok(());
            }
            Err(Failure::new(format!(
                "another part of sshd's configuration goes before podspawn's: {}",
                differences.join("; ")
            )))
        });
        if done.is_err() && made_group {
            program::must("groupdel", [GROUP])?;
        }
        done?;
        if !self.key_dir.is_dir() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.key_dir)
                .map_err(|e| Failure::new(format!("{}: {e}", self.key_dir.display())))?;
            report.0.push(format!("made {}", self.key_dir.display()));
        }
        Ok(report)
    }

    /// Undoes it.
    ///
    /// # Errors
    ///
    /// When there still are container users, or a check fails.
    pub fn remove(&self) -> Result<Report, Failure> {
        self.sshd.test().map_err(before)?;
        nobody_left()?;
        let mut report = Report::default();
        self.change(self.removal()?, &mut report, || Ok(()))?;
        if group().is_some() {
            program::must("groupdel", [GROUP])?;
            report.0.push(format!("removed the group {GROUP}"));
        }
        Ok(report)
    }

    /// The block, and the files as they have to be for it.
    fn installation(&self) -> Result<(Block, Vec<Change>), Failure> {
        let stack = files::read(Path::new(PAM))?;
        let before = stack
            .as_deref()
            .map_or(Stack::Without, |text| pam::state(text, &self.program));
        let forwarding = self.forwarding.unwrap_or(before != Stack::Without);
        let block = Block {
            program: self.program.clone(),
            key_dir: self.key_dir.clone(),
            forwarding,
        };
        for path in [&block.program, &block.key_dir] {
            spelled(path)?;
        }
        let mut changes = self.sshd_changes(Some(&block))?;
        match stack {
            Some(stack) if forwarding => {
                self.can_forward()?;
                changes.push(change(PAM, Some(pam::with_module(&stack, &self.program))));
            }
            Some(stack) => changes.push(change(PAM, Some(pam::without_module(&stack)))),
            None if forwarding => return Err(Failure::new(format!("there is no {PAM}"))),
            None => {}
        }
        if forwarding {
            // The module goes in before sshd opens anything.
            changes.rotate_right(1);
        }
        Ok((block, changes))
    }

    fn removal(&self) -> Result<Vec<Change>, Failure> {
        let mut changes = self.sshd_changes(None)?;
        if let Some(stack) = files::read(Path::new(PAM))? {
            changes.push(change(PAM, Some(pam::without_module(&stack))));
        }
        Ok(changes)
    }

    /// sshd's files with the block, or without one: a file of its own where sshd includes a
    /// directory, else the end of the main file.
    fn sshd_changes(&self, block: Option<&Block>) -> Result<Vec<Change>, Failure> {
        let path = self.sshd.config();
        let main = files::read(path)?
            .ok_or_else(|| Failure::new(format!("there is no {}", path.display())))?;
        let drop_in = sshd_config::included_dir(&main, Path::new("/etc/ssh"))
            .filter(|dir| dir.is_dir())
            .map(|dir| dir.join(sshd_config::DROP_IN));
        let bare = sshd_config::without_block(&main);
        Ok(match (drop_in, block) {
            (Some(file), _) => vec![
                change(file, block.map(Block::drop_in)),
                change(path, Some(bare)),
            ],
            (None, Some(block)) => vec![change(path, Some(sshd_config::with_block(&main, block)))],
            (None, None) => vec![change(path, Some(bare))],
        })
    }

    fn can_forward(&self) -> Result<(), Failure> {
        if module().is_none() {
            return Err(Failure::new(format!(
                "{} is not installed: without it forwarding would reach the host's own network",
                pam::MODULE
            )));
        }
        let output = self.sshd.in_force_for("root")?;
        if sshd_config::in_force(&output, "usepam") != Some("yes") {
            return Err(Failure::new(
                "the session module needs UsePAM yes in sshd's configuration",
            ));
        }
        Ok(())
    }

    /// Makes the changes, checks, and reloads; takes everything back if one of them fails.
    fn change(
        &self,
        changes: Vec<Change>,
        report: &mut Report,
        check: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let changes = files::pending(changes)?;
        let others = self.sshd.in_force_for("root")?;
        let applied = files::apply(&changes, Path::new(BACKUPS))?;
        let checked = self.sshd.test().and_then(|()| check()).and_then(|()| {
            if self.sshd.in_force_for("root")? == others {
                return Ok(());
            }
            Err(Failure::new(
                "the change would have reached other users than podspawn's",
            ))
        });
        if let Err(failure) = checked {
            return Err(undone(applied, failure));
        }
        if changes.is_empty() {
            report.0.push("nothing to change".to_owned());
            return Ok(());
        }
        for Change { path, text } in &changes {
            let what = if text.is_some() { "wrote" } else { "removed" };
            report.0.push(format!("{what} {}", path.display()));
        }
        match self.sshd.reload(self.unit.as_deref()) {
            Ok(Reloaded::Unit(unit)) => report.0.push(format!("reloaded {unit}")),
            Ok(Reloaded::Process(pid)) => report.0.push(format!("reloaded sshd, process {pid}")),
            Ok(Reloaded::NotRunning) => {
                report
                    .0
                    .push("sshd is not running; it reads this when it starts".to_owned());
            }
            Err(failure) => {
                let failure = undone(applied, failure);
                let _ = self.sshd.reload(self.unit.as_deref());
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// Where the session module is installed: a file of root's in one of PAM's directories.
#[must_use]
pub fn module() -> Option<PathBuf> {
    MODULE_DIRECTORIES
        .iter()
        .map(|dir| Path::new(dir).join(pam::MODULE))
        .find(|path| fs::metadata(path).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0))
}

fn group() -> Option<Group> {
    Group::from_name(GROUP).ok().flatten()
}

/// Without the block a container user's forwarding would reach the host.
fn nobody_left() -> Result<(), Failure> {
    let users: Vec<String> = accounts::list()?
        .into_iter()
        .map(|user| user.name)
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "there are container users, for whom sshd would open the host; first: podspawn remove-user {}",
        users.join(" ")
    )))
}

fn change(path: impl Into<PathBuf>, text: Option<String>) -> Change {
    Change {
        path: path.into(),
        text,
    }
}

fn before(failure: Failure) -> Failure {
    failure.context("sshd's configuration was wrong before; nothing is changed")
}

fn undone(applied: Applied, failure: Failure) -> Failure {
    match applied.undo() {
        Ok(()) => failure.context("everything is as it was before"),
        Err(worse) => failure.context(worse.line()),
    }
}

/// sshd and a shell must read the path as it is.
fn spelled(path: &Path) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    match path.to_str() {
        Some(text) if text.starts_with('/') && text.chars().all(plain) => Ok(()),
        _ => Err(Failure::new(format!(
            "{}: sshd's configuration cannot have such a path; use letters, digits and /._-+@",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_sshd_or_a_shell_would_read_otherwise_are_refused() {
        assert!(spelled(Path::new("/usr/bin/podspawn")).is_ok());
        for path in [
            "/a b", "/a%u", "/a$x", "/a;b", "/ä", "relative", "/a\"b", "/a\nb",
        ] {
            assert!(spelled(Path::new(path)).is_err(), "{path}");
        }
    }
}
