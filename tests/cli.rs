//! The command line as its callers see it: exit status, standard output and
//! standard error. No pod is made and no registry is asked.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Directories of a user's own, empty at first.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podspawn"));
        command
            .env_clear()
            .env("HOME", self.0.path())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().unwrap()
    }
}

/// Fails the test unless podspawn itself failed with this one line.
#[track_caller]
fn assert_refused(output: &Output, line: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("podspawn: {line}\n"));
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
}

#[test]
fn the_help_names_the_verbs_that_there_are() {
    let output = Home::new().run(["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let verbs: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(
        verbs,
        [
            "spawn",
            "list",
            "status",
            "stop",
            "rm",
            "shell",
            "run",
            "exec",
            "logs",
            "inspect",
            "cleanup",
            "pull",
            "verify-image",
            "images",
            "rmi",
            "load",
            "login",
            "logout",
            "prune",
            "df",
            "store",
            "server-setup",
            "add-user",
            "remove-user",
            "list-users",
            "auth-keys",
            "doctor",
            "sshd"
        ]
    );
    assert!(text.is_ascii(), "no colours, no surprises");
    for verb in verbs {
        let output = Home::new().run([verb, "--help"]);
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{verb}"
        );
    }
}

#[test]
fn wrong_arguments_are_a_failure_of_podspawn() {
    let home = Home::new();
    assert_refused(&home.run::<&str>([]), "no command is given; see --help");
    assert_refused(
        &home.run(["spwan"]),
        "unrecognized subcommand 'spwan'; tip: a similar subcommand exists: 'spawn'; see --help",
    );
    let output = home.run(["pull", "a\x1b[31m\nb"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said.matches(|c: char| c.is_control()).collect::<Vec<_>>(),
        ["\n"],
        "{said}"
    );
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn a_wrong_configuration_stops_every_verb_with_file_line_and_key() {
    let home = Home::new();
    let file = home.put("etc/config.yaml", "session:\n  grace_period: 60\n");
    let line = format!(
        "{}:2: session.grace_period: \"60\" has no unit; write 60s",
        file.display()
    );
    for verb in [
        &["spawn"][..],
        &["pull", "x"],
        &["images"],
        &["rmi", "x"],
        &["load", "x"],
    ] {
        let args = [OsStr::new("--config"), file.as_os_str()];
        let args = args.into_iter().chain(verb.iter().map(OsStr::new));
        assert_refused(&home.run(args), &line);
    }
    assert_eq!(
        fs::read_dir(home.path("")).unwrap().count(),
        1,
        "something was made on the way"
    );
}

#[test]
fn the_users_own_file_is_read_and_held_to_what_is_left_to_users() {
    let home = Home::new();
    let server = home.put("etc/config.yaml", "user_settings: [defaults.image]\n");
    let own = home.put(
        ".config/podspawn/config.yaml",
        "defaults:\n  shell: /bin/zsh\n",
    );
    let args = [
        OsStr::new("--config"),
        server.as_os_str(),
        OsStr::new("images"),
    ];
    let text = "defaults.shell: set by the administrator; left to users: defaults.image";
    assert_refused(&home.run(args), &format!("{}:2: {text}", own.display()));
    home.put(
        ".config/podspawn/config.yaml",
        "defaults:\n  image: debian:12\n",
    );
    assert!(home.run(args).status.success());
}

#[test]
fn a_configuration_that_is_named_must_exist() {
    let home = Home::new();
    let output = home.run(["--config", "/nowhere/config.yaml", "images"]);
    assert_refused(&output, "/nowhere/config.yaml: there is no such file");
}

#[test]
fn listing_makes_no_store() {
    let home = Home::new();
    let config = home.put("etc/config.yaml", "");
    let images = |more: &[&str]| {
        let args = [
            OsStr::new("--config"),
            config.as_os_str(),
            OsStr::new("images"),
        ];
        home.run(args.into_iter().chain(more.iter().map(OsStr::new)))
    };
    assert_eq!(images(&[]).stdout, b"REFERENCE  DIGEST  CREATED  SIZE\n");
    assert_eq!(images(&["--quiet"]).stdout, b"");
    assert_eq!(images(&["--format", "json"]).stdout, b"[]\n");
    let args = [
        OsStr::new("--config"),
        config.as_os_str(),
        OsStr::new("rmi"),
        OsStr::new("x"),
    ];
    let line = "there is no image docker.io/library/x:latest in the store";
    assert_refused(&home.run(args), line);
    assert!(!home.path(".local").exists());
}

#[test]
fn a_reader_who_is_gone_is_no_failure_and_a_full_disk_is_one() {
    let home = Home::new();
    let config = home.put("etc/config.yaml", "");
    let args = [
        OsStr::new("--config"),
        config.as_os_str(),
        OsStr::new("images"),
    ];
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = home
        .command(args)
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
    let full = File::options()
        .write(true)
        .open(Path::new("/dev/full"))
        .unwrap();
    let output = home
        .command(args)
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_refused(
        &output,
        "cannot write the output: No space left on device (os error 28)",
    );
}
