//! Real clients, run to their end with a limit on the time.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::host::Host;

/// How a program ended and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout of a program that must have succeeded in silence, without the last newline.
    #[track_caller]
    pub fn line(&self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        assert!(self.stderr.is_empty(), "{self}");
        self.text().trim_end_matches('\n').to_owned()
    }

    /// The one line in which podspawn says what failed.
    #[track_caller]
    pub fn complaint(&self) -> String {
        let text = self.errors();
        assert!(
            text.starts_with("podspawn: ") && text.ends_with('\n'),
            "{self}"
        );
        assert_eq!(text.matches('\n').count(), 1, "not one line: {self}");
        text.trim_end().to_owned()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shorten = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.chars().take(2000).collect::<String>()
        };
        write!(
            f,
            "status {:?}, signal {:?}\nstdout: {:?}\nstderr: {:?}",
            self.code,
            self.signal,
            shorten(&self.stdout),
            shorten(&self.stderr)
        )
    }
}

/// An ssh command line, built up.
pub struct Ssh<'h> {
    host: &'h Host,
    options: Vec<OsString>,
    environment: Vec<(String, String)>,
    command: Option<OsString>,
    input: Vec<u8>,
    limit: Duration,
}

impl<'h> Ssh<'h> {
    pub fn new(host: &'h Host, command: Option<&OsStr>) -> Self {
        Self {
            host,
            options: Vec::new(),
            environment: Vec::new(),
            command: command.map(OsStr::to_owned),
            input: Vec::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Adds an option of ssh's.
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Sets a variable of the client's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What stdin has; nothing unless said.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// The command, not yet started.
    pub fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        // A client with an agent of its own may use it.
        let agent = self.environment.iter().any(|(n, _)| n == "SSH_AUTH_SOCK");
        let mut options = options(self.host);
        options.retain(|o| !(agent && o == "IdentityAgent=none"));
        options.dedup_by(|later, earlier| later == "-o" && earlier == "-o");
        command
            .args(options)
            .args(["-p", &self.host.port.to_string()]);
        command.args(&self.options).arg(target(self.host));
        if let Some(text) = &self.command {
            command.arg(text);
        }
        clean(&mut command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        run(self.command(), self.input, self.limit)
    }

    /// Starts it, with pipes for all three.
    pub fn spawn(self) -> Child {
        let mut command = self.command();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// `user@127.0.0.1`, for every client.
pub fn target(host: &Host) -> String {
    format!("{}@127.0.0.1", host.user)
}

/// The options that every OpenSSH client takes.
pub fn options(host: &Host) -> Vec<String> {
    let dir = host.dir.display();
    let settings = [
        "BatchMode=yes".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        format!("IdentityFile={dir}/client_key"),
        format!("UserKnownHostsFile={dir}/known_hosts"),
        "GlobalKnownHostsFile=none".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "LogLevel=ERROR".to_owned(),
        "SendEnv=LANG LC_* COLORTERM PODSPAWN_*".to_owned(),
    ];
    let mut options = vec!["-F".to_owned(), "none".to_owned()];
    for setting in settings {
        options.extend(["-o".to_owned(), setting]);
    }
    options
}

/// Gives a program nothing of the environment of the tests.
pub fn clean(command: &mut Command) {
    let keep = ["PATH", "HOME", "USER", "LOGNAME"];
    command.env_clear();
    command.envs(
        keep.iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
}

/// Runs a program of this machine.
#[track_caller]
pub fn local<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    clean(&mut command);
    run(command, Vec::new(), Duration::from_secs(120))
}

/// Runs a command to its end with this input; panics after `limit`.
#[track_caller]
pub fn run(mut command: Command, input: Vec<u8>, limit: Duration) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    match finish(child, input, limit) {
        Ok(output) => output,
        Err(output) => panic!("not done after {limit:?}: {command:?}\n{output}"),
    }
}

/// Waits for a child with pipes; `Err` holds what there was when time was up.
pub fn finish(mut child: Child, input: Vec<u8>, limit: Duration) -> Result<Output, Output> {
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that does not read its input is no failure of the writer's.
    let writer = thread::spawn(move || stdin.write_all(&input).is_ok());
    let stdout = collect(child.stdout.take().expect("a pipe"));
    let stderr = collect(child.stderr.take().expect("a pipe"));
    let end = Instant::now() + limit;
    let mut timed_out = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end && !timed_out {
            timed_out = true;
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(3));
    };
    let _ = writer.join();
    let output = Output {
        code: status.code(),
        signal: status.signal(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    if timed_out { Err(output) } else { Ok(output) }
}

fn collect(mut source: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = source.read_to_end(&mut all);
        all
    })
}
