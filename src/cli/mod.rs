//! The verbs of the command line, one a file, and how they are chosen.
//!
//! Runs in every process that starts as `podspawn`.

pub mod add_user;
pub mod auth_keys;
pub mod cleanup;
pub mod df;
pub mod doctor;
pub mod exec;
mod format;
pub mod images;
pub mod inspect;
pub mod list;
pub mod list_users;
pub mod load;
pub mod login;
pub mod logout;
pub mod logs;
pub mod namespace;
pub(crate) mod pods;
pub mod prune;
pub mod pull;
pub mod remove_user;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod server_setup;
pub mod session_helper;
pub mod shell;
pub mod spawn;
pub mod sshd;
pub mod status;
pub mod stop;
pub mod store;
mod usage;
pub mod verify_image;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

pub use usage::parse;

use crate::account::{Account, Directories};
use crate::config::{self, Config, Locations};
use crate::exit::{Exit, Failure};

/// ssh alice@host lands in alice's own container, without a container daemon
///
/// sshd runs `podspawn spawn` for every session of a container user; other
/// commands look after the images that a user's pods are made of. All of them
/// run as that user. Root sets the host up and makes the users.
///
/// A failure of podspawn itself is one line on standard error and exit status
/// 125. 126 and 127 mean that a session's command could not be executed or was
/// not found; any other status is the command's own.
#[derive(Debug, Parser)]
#[command(name = "podspawn", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The server's configuration, instead of /etc/podspawn/config.yaml
    ///
    /// It must belong to root or to the user, and nobody else may write to it.
    /// Files for single users are looked for in the directory `users` beside it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the session that sshd started, in the user's pod (for ForceCommand)
    ///
    /// Does what the client asked for, by SSH_ORIGINAL_COMMAND: a shell, a
    /// command or sftp. The pod is made by the first session and joined by the
    /// others; an image that is missing is pulled first, with its progress on
    /// the terminal if there is one. Ends as the command ended: with its status,
    /// or killed by the same signal.
    Spawn(spawn::Args),
    /// List the user's pods
    ///
    /// What is listed runs, unless --all is given: then also pods that have ended
    /// and left something on disk. The state is running while somebody is in the
    /// pod and idle while nobody is; starting while it is made; unresponsive if
    /// its supervisor does not answer; stopped if there is none.
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show how pods are, and the limits in force
    ///
    /// With --prometheus: pods and sessions, what was created and what failed,
    /// and how long creating and joining took, in the text format of Prometheus.
    /// The counters are the user's own and begin anew when the host does.
    Status(status::Args),
    /// Stop pods
    ///
    /// Their programs get SIGTERM and SIGHUP, and SIGKILL if they do not end
    /// within seconds; services get the stop signal of their image. Returns when
    /// nothing of the pod runs. Sessions in it end. Prints the names.
    Stop(stop::Args),
    /// Remove pods with everything that they have written
    ///
    /// Of a persistent pod, too. Prints the names.
    Rm(rm::Args),
    /// Open a shell in a pod
    ///
    /// As a login does, and without ssh: the pod is made if it is not there.
    Shell(shell::Args),
    /// Run a program in a pod of its own
    ///
    /// The pod is made from the given image, which is pulled if it is missing,
    /// and is gone when the program has ended. The program has a terminal if
    /// standard input and output are one. Ends as the program ended.
    Run(run::Args),
    /// Run a program in a pod that is running
    ///
    /// The arguments are the program's as they are; no shell looks at them. The
    /// program has a terminal if standard input and output are one. Ends as the
    /// program ended.
    Exec(exec::Args),
    /// Print the log of a pod
    ///
    /// A line for each thing that happened to it, with the time, until long after
    /// it has ended.
    Logs(logs::Args),
    /// Print everything that is known of pods, as JSON
    Inspect(inspect::Args),
    /// Remove what pods left that were killed
    ///
    /// Their directories, and what they wrote unless it is to stay. Pods that run
    /// or are being made are left alone, and nothing breaks if it is never done: a
    /// new pod clears away what the one before it left. Prints the names.
    Cleanup(cleanup::Args),
    /// Fetch an image from a registry into the user's store
    ///
    /// Prints the image's digest. Layers that are in the store already are not
    /// fetched, whatever image they came with, and what was complete when a pull
    /// was interrupted need not be fetched again. User names and passwords are
    /// those that docker or podman have stored.
    Pull(pull::Args),
    /// Say whether an image can serve as a pod's
    ///
    /// Looks for what sessions need: a shell, sftp-server, scp, rsync, git, a
    /// UTF-8 locale, xauth and terminfo; says what the image has, what podspawn
    /// brings, and how to install what is missing. Then logs in to a throw-away
    /// pod of it over a real sshd and moves a file there and back by sftp, scp and
    /// rsync. Ends with status 1 if something needed is missing or does not work.
    VerifyImage(verify_image::Args),
    /// List the images in the user's store
    ///
    /// The sizes are those of the compressed layers.
    Images(images::Args),
    /// Remove images from the user's store
    ///
    /// An image loses the given name. With its last name it is deleted, and with
    /// it the layers that no other image has; while a pod uses it, it stays.
    Rmi(rmi::Args),
    /// Bring images from files into the user's store
    ///
    /// For a host that reaches no registry. What skopeo, docker save, podman
    /// save or buildah wrote is understood, compressed or not; of an image for
    /// several platforms, the one for this host is taken. Prints the digests.
    Load(load::Args),
    /// Keep a user name and a password for a registry
    ///
    /// They are shown to the registry first, and kept where docker and podman
    /// keep theirs: with the credential helper of the auth file if it names one,
    /// else in the file itself, which only its owner can read.
    Login(login::Args),
    /// Forget the user name and password for a registry
    Logout(logout::Args),
    /// Remove what no name and no pod needs from the user's store
    ///
    /// Images without a name, layers that no image has, and the remains of
    /// killed processes. Safe at any time: what a pod uses and what is being
    /// pulled stays.
    Prune(prune::Args),
    /// Show what images and pods take on the disk
    Df(df::Args),
    /// Look after the store itself
    Store(store::Args),
    /// Set this host up for container users, or undo it; as root
    ///
    /// Gives sshd a block for the group podspawn, which makes the group's sessions
    /// run in pods and closes what would reach the host, and has sshd read it. Before
    /// and after, sshd is asked whether it takes its configuration and what is in
    /// force for whom; if the answer is not as it should be, everything is put back.
    /// Live sessions and other users notice nothing. Can be run again at any time.
    ServerSetup(server_setup::Args),
    /// Make an account whose logins land in a pod; as root
    ///
    /// An account with podspawn as its shell, a range of subordinate ids and, with
    /// systemd, lingering, so that pods outlive logins. For an account that is there
    /// already, adds keys. Keys are given here or in files, never fetched: podspawn
    /// asks nobody on the network who may log in.
    AddUser(add_user::Args),
    /// Remove the accounts of container users; as root
    ///
    /// Ends everything that runs with their ids. Their homes stay, for root alone,
    /// unless --remove-home is given.
    RemoveUser(remove_user::Args),
    /// List the container users
    ListUsers(list_users::Args),
    /// Print the public keys of a container user (for AuthorizedKeysCommand)
    ///
    /// Reads nothing but the files that add-user keeps. Whatever goes wrong, it
    /// prints nothing and succeeds, so that sshd goes on to other keys.
    AuthKeys(auth_keys::Args),
    /// Look whether this host can do what podspawn promises
    ///
    /// For each precondition what was found, what it costs and what to do. As root,
    /// of the host and of every container user; else of what a user can see. For each
    /// user a pod is made as for a login, without an image, and is gone again. Exit
    /// status 1 if something promised does not hold.
    Doctor(doctor::Args),
    /// See that the user's pod is up (for the session module of sshd)
    #[command(hide = true)]
    SessionHelper,
    /// Serve one ssh connection inside the pod's network (for ProxyCommand)
    ///
    /// Gives forwarding into the pod on a host whose administrator installed
    /// nothing: runs the host's sshd, without privilege, for one connection in the
    /// network of the user's pod. A client has in ~/.ssh/config, below "Host mypod",
    /// the lines "ProxyCommand ssh host.example podspawn sshd" and "HostKeyAlias
    /// mypod". Then "ssh -L 5432:postgres:5432 mypod" reaches what the pod knows by
    /// that name, and "ssh mypod" is a session in it.
    ///
    /// Keys are those in ~/.ssh/authorized_keys on the host, and those in the
    /// directory sshd below the store; the host key is made there once.
    Sshd(sshd::Args),
    /// A session of such a connection
    #[command(hide = true)]
    SshdSession(sshd::Inside),
}

/// Runs the verb that the arguments name.
///
/// # Errors
///
/// One line about what failed.
pub fn run(cli: &Cli) -> Result<Exit, Failure> {
    let config = cli.config.as_deref();
    match &cli.verb {
        Verb::Spawn(args) => spawn::run(args, config),
        Verb::List(args) => list::run(args, config),
        Verb::Status(args) => status::run(args, config),
        Verb::Stop(args) => stop::run(args, config),
        Verb::Rm(args) => rm::run(args, config),
        Verb::Shell(args) => shell::run(args, config),
        Verb::Run(args) => run::run(args, config),
        Verb::Exec(args) => exec::run(args, config),
        Verb::Logs(args) => logs::run(args, config),
        Verb::Inspect(args) => inspect::run(args, config),
        Verb::Cleanup(args) => cleanup::run(args, config),
        Verb::VerifyImage(args) => verify_image::run(args, config),
        Verb::Pull(args) => pull::run(args, config),
        Verb::Images(args) => images::run(args, config),
        Verb::Rmi(args) => rmi::run(args, config),
        Verb::Load(args) => load::run(args, config),
        Verb::Login(args) => login::run(args, config),
        Verb::Logout(args) => logout::run(args, config),
        Verb::Prune(args) => prune::run(args, config),
        Verb::Df(args) => df::run(args, config),
        Verb::Store(args) => store::run(args, config),
        Verb::ServerSetup(args) => server_setup::run(args, config),
        Verb::AddUser(args) => add_user::run(args, config),
        Verb::RemoveUser(args) => remove_user::run(args, config),
        Verb::ListUsers(args) => list_users::run(args),
        Verb::Doctor(args) => doctor::run(args, config),
        Verb::AuthKeys(args) => Ok(auth_keys::run(args, config)),
        Verb::SessionHelper => session_helper::run(config),
        Verb::Sshd(args) => sshd::run(args, config),
        Verb::SshdSession(args) => sshd::inside(args),
    }
}

/// Who runs a verb, what is configured for them, and where their store is.
#[derive(Debug)]
pub struct Place {
    /// The user.
    pub account: Account,
    /// Their directories.
    pub directories: Directories,
    /// Where the configuration files are.
    pub locations: Locations,
    /// What the administrator and the user decided.
    pub config: Config,
    /// Root of the store.
    pub root: PathBuf,
}

impl Place {
    /// Of the user of this process, under the name `user` if they have several.
    ///
    /// # Errors
    ///
    /// When the user is unknown or a configuration file is wrong.
    pub fn of_process(user: Option<&str>, named: Option<&Path>) -> Result<Self, Failure> {
        let account = match user {
            Some(name) => Account::of_process_as(name)?,
            None => Account::of_process()?,
        };
        let directories = Directories::of(&account);
        let locations = Locations::new(named, &directories);
        let config = config::load(&locations, &account)?;
        let root = config
            .storage_root
            .as_ref()
            .map_or_else(|| directories.store(), |r| r.of(&account));
        Ok(Self {
            account,
            directories,
            locations,
            config,
            root,
        })
    }
}
