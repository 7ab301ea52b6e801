//! Credential helpers: `docker-credential-NAME get`, `store` and `erase`.
//!
//! The helper is one of the user's programs and runs with their environment. It
//! gets the server's name on standard input and answers in JSON. Nothing it
//! prints is ever quoted: it may be the secret.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Credential, CredentialSources, Secret, server_name};

const MAX_ANSWER: u64 = 1 << 20;

/// Why a helper gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The name in the auth file is not a plain word.
    #[error("{0:?} is not a credential helper's name")]
    Name(String),
    /// No such program in the directories to search.
    #[error("the credential helper docker-credential-{0} is not installed")]
    Missing(String),
    /// It could not be run.
    #[error("cannot run {}: {source}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("docker-credential-{name} gave no answer in {} s", .timeout.as_secs())]
    Timeout {
        /// The helper.
        name: String,
        /// How long it had.
        timeout: Duration,
    },
    /// It ended with a failure other than having no credentials.
    #[error(
        "docker-credential-{name} {action} failed ({status}); try `echo {server} | docker-credential-{name} get`"
    )]
    Failed {
        /// The helper.
        name: String,
        /// What it was to do.
        action: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it was asked for.
        server: String,
    },
    /// Its answer is not the JSON that was asked for.
    #[error("docker-credential-{0} answered something else than credentials")]
    Answer(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks helper `name` for `registry`; `None` when it has nothing.
pub(super) fn get(
    name: &str,
    registry: &str,
    sources: &CredentialSources,
) -> Result<Option<Credential>, HelperError> {
    let Some(answer) = run(name, "get", registry, server_name(registry), sources)? else {
        return Ok(None);
    };
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| HelperError::Answer(name.to_owned()))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credential::Identity(Secret::new(secret))),
        (username, secret) => Some(Credential::Password {
            username: username.to_owned(),
            password: Secret::new(secret),
        }),
    })
}

/// Has helper `name` keep a password for `registry`.
pub(super) fn store(
    name: &str,
    registry: &str,
    username: &str,
    password: &Secret,
    sources: &CredentialSources,
) -> Result<(), HelperError> {
    let said = serde_json::json!({
        "ServerURL": server_name(registry), "Username": username, "Secret": password.expose(),
    });
    run(name, "store", registry, &said.to_string(), sources).map(drop)
}

/// Has helper `name` forget what it has for `registry`.
pub(super) fn erase(
    name: &str,
    registry: &str,
    sources: &CredentialSources,
) -> Result<(), HelperError> {
    run(name, "erase", registry, server_name(registry), sources).map(drop)
}

/// Runs helper `name` for `registry`, with `said` on its standard input. What it answers; `None`
/// when it says that it has nothing.
fn run(
    name: &str,
    action: &'static str,
    registry: &str,
    said: &str,
    sources: &CredentialSources,
) -> Result<Option<Vec<u8>>, HelperError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(word) {
        return Err(HelperError::Name(name.chars().take(100).collect()));
    }
    let file = format!("docker-credential-{name}");
    let program = sources
        .helper_dirs
        .iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(&file))
        .find(|path| path.is_file())
        .ok_or_else(|| HelperError::Missing(name.to_owned()))?;
    let failed = |source| HelperError::Run {
        program: program.clone(),
        source,
    };
    // A group of its own, so that what it starts ends with it.
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input answers all the same.
        let _ = stdin.write_all(said.as_bytes());
    }
    let deadline = Instant::now() + sources.helper_timeout;
    let answer = read_until(&mut child, deadline);
    let status = wait_until(&mut child, deadline).map_err(failed)?;
    let (Some(answer), Some(status)) = (answer, status) else {
        kill(&mut child);
        return Err(HelperError::Timeout {
            name: name.to_owned(),
            timeout: sources.helper_timeout,
        });
    };
    if !status.success() {
        // The protocol has only this text to tell absence from failure.
        let said = String::from_utf8_lossy(&answer);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(HelperError::Failed {
            name: name.to_owned(),
            action,
            status,
            server: server_name(registry).to_owned(),
        });
    }
    Ok(Some(answer))
}

/// Standard output up to its end; `None` at the deadline.
fn read_until(child: &mut Child, deadline: Instant) -> Option<Vec<u8>> {
    let stdout = child.stdout.take()?;
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.take(MAX_ANSWER).read_to_end(&mut bytes);
        let _ = send.send(bytes);
    });
    let left = deadline.saturating_duration_since(Instant::now());
    receive.recv_timeout(left).ok()
}

fn wait_until(
    child: &mut Child,
    deadline: Instant,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(child: &mut Child) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn ask(script: &str, timeout: Duration) -> Result<Option<Credential>, HelperError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-t");
        std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let sources = CredentialSources {
            helper_dirs: vec!["/nonexistent".into(), dir.path().to_owned()],
            helper_timeout: timeout,
            ..CredentialSources::default()
        };
        get("t", "docker.io", &sources)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_server_goes_in_and_credentials_come_out() {
        let found = ask(
            r#"[ "$1" = get ] && read s || true
            printf '{"ServerURL":"%s","Username":"u","Secret":"%s"}' "$s" "$s""#,
            LONG,
        );
        assert_eq!(
            found.unwrap(),
            Some(Credential::Password {
                username: "u".into(),
                password: Secret::new("https://index.docker.io/v1/"),
            })
        );
        let found = ask(r#"echo '{"Username":"<token>","Secret":"s"}'"#, LONG);
        assert_eq!(found.unwrap(), Some(Credential::Identity(Secret::new("s"))));
    }

    #[test]
    fn having_none_is_not_a_failure() {
        let none = "echo credentials not found in native keychain; exit 1";
        assert_eq!(ask(none, LONG).unwrap(), None);
        let error = ask("echo hunter2; exit 3", LONG).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && !error.contains("hunter2"),
            "{error}"
        );
        let error = ask("echo '\"hunter2\"'", LONG).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = ask("sleep 60 & sleep 60", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, HelperError::Timeout { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn names_are_words_and_programs_are_found_or_named() {
        let sources = CredentialSources::default();
        for name in ["", "../x", "a b", "a/b", "a\nb"] {
            assert!(
                matches!(get(name, "h", &sources), Err(HelperError::Name(_))),
                "{name:?}"
            );
        }
        assert!(matches!(
            get("gone", "h", &sources),
            Err(HelperError::Missing(_))
        ));
    }
}
