//! `podspawn sshd`: forwarding into the pod where the administrator installed
//! nothing.
//!
//! Runs on the host at the other end of a client's ProxyCommand, as the user, over
//! an ordinary ssh connection. It makes or joins the pod and runs the host's own
//! sshd for one connection inside the pod's network, without any privilege. The
//! client speaks with that sshd; every session it opens is `podspawn
//! sshd-session`, which only joins. Standard output carries ssh's protocol and
//! nothing else.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use podspawn_runtime::gateway::Gateway;
use podspawn_runtime::pod::{PodName, PodNetwork, RunDir};
use podspawn_runtime::record::Sink;
use podspawn_runtime::session;

use super::{Place, spawn};
use crate::exit::{Exit, Failure};
use crate::project::Project;
use crate::session::{Joining, Wanted};
use crate::{audited, own_sshd};

/// Arguments of `podspawn sshd`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project whose pod to use; a `.pod` suffix is stripped
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

/// Arguments of `podspawn sshd-session`.
#[derive(Debug, clap::Args)]
pub struct Inside {
    #[arg(long)]
    run: PathBuf,
    #[arg(long)]
    pod: PodName,
    #[arg(long)]
    terminfo: usize,
    #[arg(long = "shell")]
    shells: Vec<PathBuf>,
    /// The audit log, if it is not the journal.
    #[arg(long)]
    audit: Option<PathBuf>,
    #[arg(long)]
    user: String,
    #[arg(long)]
    uid: u32,
    /// Where the connection that all goes through comes from.
    #[arg(long)]
    client: Option<String>,
}

/// Most that is read of a file of keys, in bytes.
const KEYS: u64 = 256 << 10;

/// Serves one connection.
///
/// # Errors
///
/// One line, when there is no pod, no sshd or no key to log in with.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    session::close_inherited();
    let place = Place::of_process(None, named)?;
    let project = args.project.clone();
    let pod = spawn::pod_name(project.or_else(|| std::env::var("PODSPAWN_PROJECT").ok()))?;
    let sshd = program()?;
    let own = place.root.join("sshd");
    let host_key = host_key(&own)?;
    let keys = keys(&place, &own)?;
    let run = RunDir::of_user(place.directories.runtime.as_deref(), place.account.uid)?;
    let view = run.path().join(".sshd");
    directory(&view)?;

    // Its sessions say nothing of the Podfile, which is out of their reach.
    let project = Project::of(&place, &pod)?;
    if let Some(line) = &project.trouble {
        crate::output::notice(line);
    }
    let attached = crate::session::enter(&place, Some(&project), pod.clone(), true, None)?;
    let network = PodNetwork::of(&attached)
        .map_err(|e| Failure::new(format!("cannot reach the pod's network: {e}")))?;
    let config = config(
        &place,
        &host_key,
        &view,
        &forced(&place, &project, &run, &pod)?,
    );
    let files = [
        ("sshd_config", config.into_bytes()),
        ("authorized_keys", keys),
        ("hosts", network.hosts),
        ("resolv.conf", network.resolv),
        ("nsswitch.conf", b"hosts: files dns\n".to_vec()),
        ("group", without_terminals()),
    ];
    let mut instead = vec![
        ("hosts", "/etc/hosts"),
        ("resolv.conf", "/etc/resolv.conf"),
        ("nsswitch.conf", "/etc/nsswitch.conf"),
    ];
    if !attached.info.has_groups {
        instead.push(("group", "/etc/group"));
    }
    let path = c_string(sshd.as_os_str().as_bytes())?;
    let config = c_string(view.join("sshd_config").as_os_str().as_bytes())?;
    let gateway = Gateway {
        attached: &attached,
        place: &view,
        files: &files,
        instead: &instead,
        args: vec![path.clone(), c"-i".into(), c"-f".into(), config],
        program: path,
        env: vec![c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
    };
    let ending = gateway
        .run()
        .map_err(|e| Failure::new(podspawn_runtime::error::chain(&e)))?;
    Ok(match ending {
        session::Ending::Exited(status) => Exit::Status(status),
        session::Ending::Signaled(signal) => Exit::Signal(signal),
    })
}

/// Runs one session of such a connection.
///
/// # Errors
///
/// One line, when the pod is gone.
pub fn inside(args: &Inside) -> Result<Exit, Failure> {
    session::close_inherited();
    let wanted = Wanted {
        pod: args.pod.clone(),
        create: false,
        ..spawn::wanted(args.pod.clone())
    };
    let joining = Joining {
        shells: args.shells.clone(),
        terminfo: args.terminfo,
        audit: args.audit.clone().map_or(Sink::Journal, Sink::File),
        user: (&args.user, args.uid),
        client: args.client.as_deref(),
    };
    crate::session::join(&args.run, wanted, joining)
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|e| Failure::new(format!("a path holds a NUL byte: {e}")))
}

fn program() -> Result<PathBuf, Failure> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::new("this host has no sshd to run for you"))
}

fn directory(path: &Path) -> Result<(), Failure> {
    match fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
    {
        Ok(()) => Ok(()),
        Err(e) => Err(Failure::new(format!(
            "cannot make the directory {}: {e}",
            path.display()
        ))),
    }
}

/// The key by which clients recognise this sshd; made once.
fn host_key(own: &Path) -> Result<PathBuf, Failure> {
    let key = own.join("host_key");
    if key.is_file() {
        return Ok(key);
    }
    directory(own)?;
    let new = own.join(format!(".new.{}", std::process::id()));
    let made = own_sshd::keygen(&new, "podspawn")
        .stderr(Stdio::null())
        .status();
    if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(Failure::new("ssh-keygen cannot make a host key"));
    }
    let public = |key: &Path| PathBuf::from(format!("{}.pub", key.display()));
    // Of several at once the first wins: a link does not replace.
    let linked = match fs::hard_link(&new, &key) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => fs::rename(public(&new), public(&key)),
        Err(e) => Err(e),
    };
    let _ = fs::remove_file(&new);
    let _ = fs::remove_file(public(&new));
    linked.map_err(|e| Failure::new(format!("cannot keep the host key {}: {e}", key.display())))?;
    Ok(key)
}

/// Who may log in: those who may log in as the user on the host. Checked here,
/// because sshd cannot tell root's directories from others' inside.
fn keys(place: &Place, own: &Path) -> Result<Vec<u8>, Failure> {
    let home = &place.account.home;
    let files = [
        home.join(".ssh/authorized_keys"),
        home.join(".ssh/authorized_keys2"),
        own.join("authorized_keys"),
    ];
    let mut all = Vec::new();
    for file in &files {
        let Some(found) = trusted(file, place.account.uid) else {
            continue;
        };
        if found.take(KEYS).read_to_end(&mut all).is_ok() {
            all.push(b'\n');
        }
    }
    if all.is_empty() {
        return Err(Failure::new(format!(
            "no key to log in with; put your public key into {} or {}",
            files[0].display(),
            files[2].display()
        )));
    }
    Ok(all)
}

/// Opens a file that only root and the user can have written, as sshd's
/// `StrictModes` wants it.
fn trusted(path: &Path, uid: u32) -> Option<fs::File> {
    let fine = |found: &fs::Metadata| {
        (found.uid() == uid || found.uid() == 0) && found.mode() & 0o022 == 0
    };
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc_nonblock())
        .open(path)
        .ok()?;
    let found = file.metadata().ok()?;
    let above = path.parent()?;
    let dirs = [above, above.parent()?];
    let dirs_fine = dirs
        .iter()
        .all(|dir| fs::metadata(dir).is_ok_and(|found| fine(&found)));
    (found.is_file() && fine(&found) && dirs_fine).then_some(file)
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// The host's groups but for that of terminals: without subordinate ids sshd
/// could not give it anything.
fn without_terminals() -> Vec<u8> {
    let groups = fs::read("/etc/group").unwrap_or_default();
    groups
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| !line.starts_with(b"tty:"))
        .flatten()
        .copied()
        .collect()
}

/// The forced command, for the user's shell.
fn forced(
    place: &Place,
    project: &Project,
    run: &RunDir,
    pod: &PodName,
) -> Result<String, Failure> {
    let own = std::env::current_exe()
        .map_err(|e| Failure::new(format!("cannot find podspawn's own file: {e}")))?;
    let (shells, terminfo) = crate::spec::means(&project.config);
    let mut words: Vec<OsString> = vec![
        own.into(),
        "sshd-session".into(),
        "--run".into(),
        run.path().into(),
        "--pod".into(),
        pod.as_str().into(),
        "--terminfo".into(),
        terminfo.len().to_string().into(),
        "--user".into(),
        place.account.name.clone().into(),
        "--uid".into(),
        place.account.uid.to_string().into(),
    ];
    if let Sink::File(path) = crate::session::records(place).audit {
        words.extend(["--audit".into(), path.into()]);
    }
    let connection = std::env::var("SSH_CONNECTION").ok();
    if let Some(client) = audited::client(connection.as_deref()) {
        words.extend(["--client".into(), client.into()]);
    }
    for shell in shells {
        words.extend(["--shell".into(), shell.into()]);
    }
    let words: Option<Vec<String>> = words
        .iter()
        .map(|w| w.to_str().and_then(own_sshd::quoted))
        .collect();
    words
        .map(|words| format!("exec {}", words.join(" ")))
        .ok_or_else(unquotable)
}

/// Of [`own_sshd::quoted`].
pub(super) fn unquotable() -> Failure {
    Failure::new("a path has characters that sshd's configuration cannot hold")
}

fn config(place: &Place, host_key: &Path, view: &Path, forced: &str) -> String {
    let common = own_sshd::config(host_key, &view.join("authorized_keys"), forced);
    format!(
        "{common}\
         AllowUsers {}\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitUserEnvironment no\n\
         AcceptEnv LANG LC_* COLORTERM\n\
         AllowAgentForwarding yes\n\
         AllowTcpForwarding yes\n\
         GatewayPorts clientspecified\n\
         X11Forwarding yes\n\
         PermitTunnel no\n",
        place.account.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_that_others_can_write_are_not_read() {
        let uid = rustix::process::getuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("ssh");
        fs::create_dir(&inner).unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = inner.join("authorized_keys");
        fs::write(&file, "key").unwrap();
        for (path, usual) in [
            (dir.path(), 0o755),
            (inner.as_path(), 0o700),
            (&file, 0o600),
        ] {
            set(path, usual);
        }
        assert!(trusted(&file, uid).is_some());
        for (path, usual) in [
            (dir.path(), 0o755),
            (inner.as_path(), 0o700),
            (&file, 0o600),
        ] {
            set(path, usual | 0o020);
            assert!(trusted(&file, uid).is_none(), "{}", path.display());
            set(path, usual);
        }
        assert!(trusted(&inner, uid).is_none());
    }
}
