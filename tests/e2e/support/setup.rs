//! What `scripts/test` hands in through the environment.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where everything is.
pub struct Setup {
    /// Holds `bin/podspawn` and `images/NAME`, readable by everybody.
    pub stage: PathBuf,
    /// Where the tests keep what they make.
    pub work: PathBuf,
    /// `127.0.0.1:PORT` of a registry that serves `podspawn/NAME:1`.
    pub registry: String,
    /// The storage directory of that registry, writable.
    pub registry_storage: PathBuf,
    /// One that wants alice's password and has `private/busybox:1`.
    pub private: String,
    /// Whether an sshd of an ordinary user can hand out terminals here.
    pub ttys: bool,
    /// Whether this run is by a user who has no subordinate ids.
    pub single_id: bool,
    /// For whom root runs an sshd; else every sshd is the user's own.
    pub root: Option<Root>,
    /// In a network namespace with a world outside of it: its resolv.conf.
    pub outside: Option<PathBuf>,
    /// In CI every test must run.
    pub ci: bool,
}

/// The users of the tests that root runs.
pub struct Root {
    /// A container user.
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// One who is none.
    pub other: String,
}

impl Root {
    fn read() -> Option<Self> {
        let text = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let user = text("PODSPAWN_E2E_ROOT")?;
        let found = nix::unistd::User::from_name(&user)
            .ok()
            .flatten()
            .expect("scripts/test has made the user");
        Some(Self {
            user,
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
            other: text("PODSPAWN_E2E_OTHER").expect("set beside PODSPAWN_E2E_ROOT"),
        })
    }
}

static SETUP: OnceLock<Setup> = OnceLock::new();

/// Reads the environment; `None` where these tests were not prepared.
pub fn read() -> Option<&'static Setup> {
    let set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
    let text = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    match env::var("PODSPAWN_E2E").as_deref() {
        Err(_) => {
            super::say("skipped: run scripts/test");
            // Counted by nobody: this is no failure and no success.
            assert!(
                !set("CI"),
                "the end-to-end tests were not prepared: run scripts/test"
            );
            None
        }
        // scripts/test runs them in a later step.
        Ok("later") => None,
        Ok(stage) => Some(SETUP.get_or_init(|| Setup {
            stage: PathBuf::from(stage),
            work: PathBuf::from(text("PODSPAWN_E2E_WORK")),
            registry: text("PODSPAWN_E2E_REGISTRY"),
            registry_storage: PathBuf::from(stage).join("registry/storage"),
            private: text("PODSPAWN_E2E_PRIVATE"),
            ttys: !set("PODSPAWN_E2E_NO_TTYS"),
            single_id: set("PODSPAWN_E2E_SINGLE"),
            root: Root::read(),
            outside: set("PODSPAWN_E2E_OUTSIDE").then(|| text("PODSPAWN_E2E_OUTSIDE").into()),
            ci: env::var("CI").as_deref() == Ok("true"),
        })),
    }
}

/// The setup that `main` has read.
pub fn get() -> &'static Setup {
    SETUP.get().expect("main reads the setup before any test")
}
