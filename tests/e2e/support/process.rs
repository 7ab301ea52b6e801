//! The processes of this machine, as /proc shows them to an ordinary user.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// What the process calls itself.
    pub name: String,
    /// The arguments, joined by spaces.
    pub command: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after_name) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let mut fields = after_name.split_whitespace();
        // A zombie holds nothing but its number.
        if fields.next()? == "Z" {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned();
        Some(Self {
            pid,
            parent,
            name,
            command,
        })
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }

    /// Whether it has: a dying one lets go of its mounts before its locks.
    pub fn has_ended(&self) -> bool {
        Self::read(self.pid).is_none_or(|now| now.name != self.name)
    }

    /// Does a mount of this process's namespace lie on something below `path`?
    pub fn mounts_from(&self, path: &Path) -> bool {
        let path = path.to_str().expect("paths of the tests are UTF-8");
        fs::read_to_string(format!("/proc/{}/mountinfo", self.pid))
            .is_ok_and(|all| all.contains(path))
    }
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Every process there is.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect()
}

/// Those with `text` in their arguments.
pub fn with_argument(text: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| process.command.contains(text))
        .collect()
}

/// Whether there is one with exactly this command line, not a client or shell that was told it.
pub fn runs(command: &str) -> bool {
    all().iter().any(|process| process.command == command)
}

/// Every descendant of `root`, children before grandchildren.
pub fn descendants(root: i32) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}
