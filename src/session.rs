//! One session in one of the user's pods, from the configuration to the end of
//! its program: what `spawn`, `shell`, `exec` and `run` share.
//!
//! Runs in a process that stays a single thread, because it creates namespaces
//! and enters others; an image that is missing is pulled in a child process,
//! which may have as many as it likes.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use podspawn_runtime::metrics::{Counter, Latency, Metrics};
use podspawn_runtime::pod::{
    Attached, Came, FindError, Mode, PodName, PodPaths, RunDir, attach, attach_or_launch,
    is_behind_module,
};
use podspawn_runtime::record::{Audit, Records, Sink};
use podspawn_runtime::session::{self, Action, Ended, Ending, Session};
use podspawn_runtime::sockets::Forwarded;

use crate::audited::{self, Audited};
use crate::cli::Place;
use crate::config::UserPath;
use crate::exit::{Exit, Failure};
use crate::output::{self, text};
use crate::project::Project;
use crate::{services, spec, starter};

/// Of a user's own variables, those that mean the same inside.
const LOCAL: [&str; 3] = ["COLORTERM", "LANG", "TERM"];

/// How often a session looks for its pod again that ended as it was let in.
const AGAIN: u32 = 3;

/// How long a supervisor may take to see that its container has ended.
const NOTICE: Duration = Duration::from_secs(5);

/// What is to run, and where.
#[derive(Debug)]
pub struct Wanted {
    /// The pod.
    pub pod: PodName,
    /// Whether the pod is made if it is not there.
    pub create: bool,
    /// The mode of a pod that is made, if it is not for the configuration to say.
    pub mode: Option<Mode>,
    /// What runs in it.
    pub action: Action,
    /// Variables of the caller's that mean the same inside.
    pub env: Vec<(OsString, OsString)>,
    /// Whether the caller's terminal is to be the program's.
    pub terminal: bool,
    /// What the ssh connection brings along.
    pub forwarded: Forwarded,
}

/// What a session that only joins is told by one that read the configuration.
#[derive(Debug)]
pub struct Joining<'a> {
    /// Shells to try, best first.
    pub shells: Vec<PathBuf>,
    /// How many terminfo directories of the host the pod shows.
    pub terminfo: usize,
    /// Where it is written down.
    pub audit: Sink,
    /// Name and id of the user on the host.
    pub user: (&'a str, u32),
    /// Address and port of the client, if it came over the network.
    pub client: Option<&'a str>,
}

/// A session of somebody on this host, in a pod that is there. It gets a
/// terminal if they have one, and nothing of the host's environment but their
/// language and terminal.
#[must_use]
pub fn here(pod: PodName, action: Action) -> Wanted {
    let local = |name: &OsStr| {
        let name = name.as_bytes();
        name.starts_with(b"LC_") || LOCAL.iter().any(|n| n.as_bytes() == name)
    };
    Wanted {
        pod,
        create: false,
        mode: None,
        action,
        env: std::env::vars_os().filter(|(n, _)| local(n)).collect(),
        terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        forwarded: Forwarded::default(),
    }
}

/// The name of a pod that nobody comes back to, which no other pod has: `KIND-…`.
///
/// # Errors
///
/// When `kind` is not the beginning of a name.
pub fn throw_away(kind: &str) -> Result<PodName, Failure> {
    let noise = RandomState::new().hash_one(std::process::id());
    Ok(format!("{kind}-{noise:016x}").parse()?)
}

/// Runs the session.
///
/// # Errors
///
/// One line, when no session could be had.
pub fn run(place: &Place, wanted: Wanted) -> Result<Exit, Failure> {
    let pod = wanted.pod.clone();
    let user = (&*place.account.name, place.account.uid);
    let client = audited::client(std::env::var("SSH_CONNECTION").ok().as_deref());
    let runs = (&wanted.action, wanted.terminal);
    let audited = Audited::begin(records(place).audit, user, &pod, client.as_deref(), runs);

    let (audit, result) = match Project::of(place, &pod) {
        Ok(project) => held(place, &project, wanted, &audited),
        Err(failure) => (audited.open(), Err(failure)),
    };
    audit.write(audited.end(&result));
    exit_of(&pod, result?)
}

/// Runs the program in its pod, once that is there and ready. Returns the audit log too,
/// opened before the pod was entered.
fn held(
    place: &Place,
    project: &Project,
    wanted: Wanted,
    audited: &Audited,
) -> (Audit, Result<Ended, Failure>) {
    let (pod, create, mode) = (wanted.pod.clone(), wanted.create, wanted.mode);
    let (action, terminal) = (wanted.action.clone(), wanted.terminal);
    let (shells, terminfo) = spec::means(&project.config);
    let session = session_of(wanted, shells, terminfo.len());
    if let Some(line) = &project.trouble {
        output::notice(line);
    }
    let mut again = AGAIN;
    loop {
        let attached = attached(place, project, &pod, create, mode).and_then(|attached| {
            let paths = paths(place, pod.clone())?;
            services::wait(&paths, &attached.info, &action, terminal)?;
            Ok(attached)
        });
        // While the host's files are in sight.
        let audit = audited.open();
        let result = match attached {
            Ok(attached) => match session::run(&attached, &session) {
                // The supervisor learns of the end of the container a moment later.
                Err(e) if e.found_nobody() && again > 0 && attached.ends_within(NOTICE) => {
                    again -= 1;
                    continue;
                }
                result => result.map_err(Failure::from),
            },
            Err(failure) => Err(failure),
        };
        return (audit, result);
    }
}

/// Runs the session in a pod that is there, without a look at the configuration:
/// inside of the pod's user namespace nobody can tell whose that is. What matters
/// of it is in `joining`.
///
/// # Errors
///
/// One line, when the pod is not there.
pub fn join(run: &Path, wanted: Wanted, joining: Joining<'_>) -> Result<Exit, Failure> {
    let runs = (&wanted.action, wanted.terminal);
    let audited = Audited::begin(
        joining.audit,
        joining.user,
        &wanted.pod,
        joining.client,
        runs,
    );
    let pod = wanted.pod.clone();
    let session = session_of(wanted, joining.shells, joining.terminfo);
    let attached = there(run, &pod);
    // While the host's files are in sight.
    let audit = audited.open();
    let result =
        attached.and_then(|attached| session::run(&attached, &session).map_err(Failure::from));
    audit.write(audited.end(&result));
    exit_of(&pod, result?)
}

/// The pod that is there.
fn there(run: &Path, pod: &PodName) -> Result<Attached, Failure> {
    let run = RunDir::at(run, rustix::process::getuid().as_raw())?;
    // Joining needs no storage.
    let paths = PodPaths::new(&run, Path::new("/"), pod.clone());
    attach(&paths)?.ok_or_else(|| Failure::new(cannot_start(pod)))
}

/// The session of what is wanted, with the shells and terminfo of [`spec::means`].
pub fn session_of(wanted: Wanted, shells: Vec<PathBuf>, terminfo: usize) -> Session {
    Session {
        action: wanted.action,
        env: wanted.env,
        terminal: wanted.terminal,
        shells,
        terminfo,
        forwarded: wanted.forwarded,
        login: rustix::process::getuid().as_raw(),
    }
}

/// Ends as the program ended; with a line, if the pod ended under it.
fn exit_of(pod: &PodName, ended: Ended) -> Result<Exit, Failure> {
    let exit = match ended.how {
        Ending::Exited(status) => Exit::Status(status),
        Ending::Signaled(signal) => Exit::Signal(signal),
    };
    match ended.pod_ended {
        Some(why) if exit.code() != 0 => {
            Err(Failure::new(format!("pod {pod} ended: {why}")).with_exit(exit))
        }
        _ => Ok(exit),
    }
}

fn cannot_start(pod: &PodName) -> String {
    format!(
        "pod {pod} is not running, and this connection cannot start it; \
         close the connection (ssh -O exit) and log in again"
    )
}

/// The session's way into its pod.
fn attached(
    place: &Place,
    project: &Project,
    pod: &PodName,
    create: bool,
    mode: Option<Mode>,
) -> Result<Attached, Failure> {
    let attached = enter(place, Some(project), pod.clone(), create, mode)?;
    Metrics::open(&run_dir(place)?).count(Counter::Sessions);
    Ok(attached)
}

fn run_dir(place: &Place) -> Result<RunDir, Failure> {
    let xdg = place.directories.runtime.as_deref();
    Ok(RunDir::of_user(xdg, place.account.uid)?)
}

/// Attaches to a pod, which is made if it is not there and `create` says so: in
/// `mode`, if it is not for the configuration to say. `project` is read then, unless
/// it has been.
///
/// # Errors
///
/// One line, when there is no pod.
pub fn enter(
    place: &Place,
    project: Option<&Project>,
    pod: PodName,
    create: bool,
    mode: Option<Mode>,
) -> Result<Attached, Failure> {
    let run = run_dir(place)?;
    let paths = paths(place, pod)?;
    let attached = attach_to(place, project, &paths, create, mode);
    count(&Metrics::open(&run), &attached);
    attached.map_err(|error| {
        let failure = Failure::from(error);
        let fields = [
            ("PODSPAWN_USER", place.account.name.as_str()),
            ("PODSPAWN_POD", paths.name.as_str()),
        ];
        let line = format!("no session: {}", text::escape(failure.line()));
        let log = records(place).log.open();
        log.event(SystemTime::now(), &line, &fields);
        failure
    })
}

/// The places of one of the user's pods.
///
/// # Errors
///
/// When the run directory cannot be used.
pub fn paths(place: &Place, pod: PodName) -> Result<PodPaths, Failure> {
    Ok(PodPaths::new(&run_dir(place)?, &place.root, pod))
}

fn attach_to(
    place: &Place,
    project: Option<&Project>,
    paths: &PodPaths,
    create: bool,
    mode: Option<Mode>,
) -> Result<Attached, FindError> {
    if create && !is_behind_module() {
        let create = || match project {
            Some(project) => spec::of(place, project, mode, paths),
            None => spec::of(place, &Project::of(place, &paths.name)?, mode, paths),
        };
        let most = place.config.max_per_user;
        return attach_or_launch(paths, most, || create().map_err(Line));
    }
    if let Some(attached) = attach(paths)? {
        return Ok(attached);
    }
    let name = &paths.name;
    if !create {
        let line = format!("pod {name} is not running; podspawn shell {name} starts it");
        return Err(FindError::Refused(line));
    }
    let refused = |failure: Failure| FindError::Refused(failure.line().to_owned());
    let run = run_dir(place).map_err(refused)?;
    if starter::ask(&run, name).map_err(refused)?
        && let Some(attached) = attach(paths)?
    {
        return Ok(attached);
    }
    Err(FindError::Refused(cannot_start(name)))
}

fn count(metrics: &Metrics, attached: &Result<Attached, FindError>) {
    match attached {
        Ok(attached) => {
            let latency = match attached.came {
                Came::Joined => Latency::Join,
                Came::Created => Latency::Create,
            };
            metrics.observe(latency, attached.took);
        }
        Err(FindError::Spec(_)) => metrics.count(Counter::ImageFailures),
        Err(FindError::Launch(_) | FindError::NotCreated(_)) => {
            metrics.count(Counter::CreateFailures)
        }
        Err(_) => metrics.count(Counter::JoinFailures),
    }
}

/// Where what happens is written down, for this user.
#[must_use]
pub fn records(place: &Place) -> Records {
    let sink = |path: &Option<UserPath>| match path {
        Some(path) => Sink::File(path.of(&place.account)),
        None => Sink::Journal,
    };
    Records {
        log: sink(&place.config.log),
        audit: sink(&place.config.audit_log),
    }
}

/// A failure as the cause of another.
#[derive(Debug)]
struct Line(Failure);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.line())
    }
}

impl std::error::Error for Line {}
