//! The log of a pod's life: one line an event, in the pod's run directory and
//! wherever the administrator wants all pods' lines.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::PodSpec;
use crate::pod::PodPaths;
use crate::record::{Sink, timestamp};

/// How long the file may grow, in bytes. What was in it before is kept once more.
const MOST: u64 = 256 << 10;

/// An open log. Writing to it never fails a pod.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    old: PathBuf,
    file: Option<File>,
    length: u64,
    /// The administrator's place. Opened for each line: it may be moved away
    /// while a pod lives.
    sink: Sink,
    user: String,
    pod: String,
}

impl Log {
    /// Goes on with the log of the pod of this name: why the one before ended is
    /// worth to be known.
    #[must_use]
    pub fn of(spec: &PodSpec) -> Self {
        let (user, sink) = (spec.login.name.clone(), spec.records.log.clone());
        Self::open(&spec.paths, sink, user)
    }

    fn open(paths: &PodPaths, sink: Sink, user: String) -> Self {
        let mut log = Self {
            path: paths.log(),
            old: paths.old_log(),
            file: None,
            length: 0,
            sink,
            user,
            pod: paths.name.to_string(),
        };
        log.reopen();
        log
    }

    /// Begins a new file where the old one has lost its name.
    pub fn reopen(&mut self) {
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        self.file = options.open(&self.path).ok();
        let length = self.file.as_ref().and_then(|f| f.metadata().ok());
        self.length = length.map_or(0, |found| found.len());
    }

    /// Appends one line, with the time. Control characters are escaped.
    pub fn line(&mut self, event: impl Display) {
        let event = escape(&event.to_string());
        let now = timestamp(SystemTime::now());
        let line = format!("{now} {event}\n");
        self.length += line.len() as u64;
        if self.length > MOST && fs::rename(&self.path, &self.old).is_ok() {
            self.reopen();
            self.length += line.len() as u64;
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
        let sink = self.sink.open();
        if sink.is_open() {
            let (user, pod) = (&self.user, &self.pod);
            let fields = [("PODSPAWN_USER", &**user), ("PODSPAWN_POD", pod)];
            sink.event(SystemTime::now(), &event, &fields);
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{PodName, RunDir};

    #[test]
    fn a_log_is_continued_and_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let run = RunDir::of_user(Some(dir.path()), uid).unwrap();
        let paths = PodPaths::new(&run, dir.path(), PodName::default_pod());
        paths.open_run().unwrap();
        let all = dir.path().join("all");
        let open = || Log::open(&paths, Sink::File(all.clone()), "alice".into());
        open().line("one\x1b\n");
        open().line("two");
        let text = fs::read_to_string(paths.log()).unwrap();
        let events: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(events, ["one\\u{1b}\\n", "two"]);
        let text = fs::read_to_string(&all).unwrap();
        assert!(text.ends_with(" alice/default: two\n"), "{text}");
        let mut log = open();
        for n in 0..20_000 {
            log.line(format_args!("a session came, and that was number {n}"));
        }
        let size = |path| fs::metadata(path).unwrap().len();
        assert!(size(paths.log()) <= MOST && size(paths.old_log()) <= MOST);
        let last = fs::read_to_string(paths.log()).unwrap();
        assert!(last.ends_with("number 19999\n"));
    }
}
