//! Adapting the merged root to the session user: the account, the home, the
//! names of hosts, and the programs that ssh clients call by path.
//!
//! Runs in the supervisor once the overlay is mounted; everything lands in the
//! pod's upper directory, nothing in the image. What an image has is left as it
//! is unless the user would not be found otherwise.

use std::io;
use std::path::{Path, PathBuf};

use super::{PodSpec, UserChoice};
use crate::accounts::{self, Account};
use crate::guest;
use crate::pod::SessionUser;
use crate::rootfs::{Ownership, Rootfs};

/// Why the root could not be adapted.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file could not be read or written.
    #[error("cannot set up {path} in the container")]
    File {
        /// The path inside.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image names a user that it does not have.
    #[error("the image wants to run as {0:?}, which its /etc/passwd does not have")]
    NoSuchUser(String),
    /// The chosen user has no id in the pod's user namespace.
    #[error(
        "uid {0} cannot be used without subordinate ids; ask the administrator for a range in /etc/subuid and /etc/subgid"
    )]
    Unmapped(u32),
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Adapts the root, and says who sessions are. `names` are lines of `/etc/hosts`. Without `resolv_conf`, that of the
/// image stays.
///
/// # Errors
///
/// When the image's user does not exist, or a file cannot be written.
pub fn provision(
    root: &Path,
    spec: &PodSpec,
    resolv_conf: Option<&str>,
    names: &str,
) -> Result<SessionUser, ProvisionError> {
    let rootfs = Rootfs::open(root).map_err(|source| ProvisionError::File {
        path: "/".into(),
        source,
    })?;
    let p = Provision { rootfs, spec };
    p.dir("/etc", p.root(0o755), p.root(0o755))?;
    p.dir(guest::DIR, p.root(0o755), p.root(0o755))?;
    let user = p.user()?;
    p.hosts(names)?;
    if let Some(text) = resolv_conf {
        p.replace("/etc/resolv.conf", text.as_bytes())?;
    }
    p.programs()?;
    p.sudo(&user)?;
    if let Some(workspace) = &spec.workspace {
        let own = Ownership {
            owner: Some((user.uid, user.gid)),
            mode: 0o755,
        };
        p.dir(&workspace.at.to_string_lossy(), own, p.root(0o755))?;
    }
    Ok(user)
}

struct Provision<'a> {
    rootfs: Rootfs,
    spec: &'a PodSpec,
}

impl Provision<'_> {
    fn root(&self, mode: u32) -> Ownership {
        Ownership {
            owner: self.spec.map.has_uid(0).then_some((0, 0)),
            mode,
        }
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, ProvisionError> {
        let read = self
            .rootfs
            .read(path.as_ref())
            .map_err(|source| file(path, source))?;
        Ok(read.unwrap_or_default())
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), ProvisionError> {
        self.rootfs
            .replace(path.as_ref(), bytes, self.root(0o644))
            .map_err(|source| file(path, source))
    }

    fn dir(&self, path: &str, last: Ownership, above: Ownership) -> Result<bool, ProvisionError> {
        self.rootfs
            .make_dir(path.as_ref(), last, above)
            .map_err(|source| file(path, source))
    }

    /// Chooses the session user and sees that the image knows them.
    fn user(&self) -> Result<SessionUser, ProvisionError> {
        let (passwd, group) = (self.read(PASSWD)?, self.read(GROUP)?);
        let account = match self.spec.user {
            UserChoice::Login => self.login_account(&passwd),
            UserChoice::Root => named(&passwd, "0", &group).unwrap_or_else(|| bare(0, 0)),
            UserChoice::Image => {
                let wanted = self
                    .spec
                    .image
                    .config
                    .config()
                    .as_ref()
                    .and_then(|c| c.user().clone())
                    .unwrap_or_default();
                let wanted = if wanted.is_empty() {
                    "0".to_owned()
                } else {
                    wanted
                };
                named(&passwd, &wanted, &group).ok_or(ProvisionError::NoSuchUser(wanted))?
            }
        };
        if !self.spec.map.has_uid(account.uid) || !self.spec.map.has_gid(account.gid) {
            return Err(ProvisionError::Unmapped(account.uid));
        }
        if self.spec.user == UserChoice::Login {
            if let Some(new) = accounts::with_account(&passwd, &account) {
                self.replace(PASSWD, &new)?;
            }
            if let Some(new) = accounts::with_group(&group, &account.name, account.gid) {
                self.replace(GROUP, &new)?;
            }
        }
        self.home(&account)?;
        let groups = accounts::groups_of(&group, &account.name)
            .into_iter()
            .filter(|g| self.spec.map.has_gid(*g))
            .collect();
        Ok(SessionUser {
            name: account.name,
            uid: account.uid,
            gid: account.gid,
            groups,
            home: account.home,
            shell: Some(account.shell).filter(|s| !s.is_empty()),
        })
    }

    /// The login user keeps name and ids; home and shell are the image's where it
    /// has the very same user.
    fn login_account(&self, passwd: &[u8]) -> Account {
        let login = &self.spec.login;
        let existing =
            accounts::accounts(passwd).find(|a| a.name == login.name && a.uid == login.uid);
        let home = match &existing {
            Some(a) if a.home.starts_with('/') => a.home.clone(),
            _ => format!("/home/{}", login.name),
        };
        let shell = existing
            .map(|a| PathBuf::from(a.shell))
            .into_iter()
            .chain(self.spec.shells.iter().cloned())
            .find(|s| s.is_absolute() && self.rootfs.is_executable(s));
        Account {
            name: login.name.clone(),
            uid: login.uid,
            gid: login.gid,
            home,
            shell: shell
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }
    }

    /// Makes the home if the image has none, with what `/etc/skel` holds.
    fn home(&self, account: &Account) -> Result<(), ProvisionError> {
        if !account.home.starts_with('/') {
            return Ok(());
        }
        let own = |mode| Ownership {
            owner: Some((account.uid, account.gid)),
            mode,
        };
        if !self.dir(&account.home, own(0o755), self.root(0o755))? {
            return Ok(());
        }
        let skel = Path::new("/etc/skel");
        for name in self.rootfs.files_in(skel, 64) {
            let to = Path::new(&account.home).join(&name);
            let copied = self
                .rootfs
                .read(&skel.join(&name))
                .and_then(|bytes| match bytes {
                    Some(bytes) => self.rootfs.replace(&to, &bytes, own(0o644)),
                    None => Ok(()),
                });
            copied.map_err(|source| ProvisionError::File { path: to, source })?;
        }
        Ok(())
    }

    fn hosts(&self, names: &str) -> Result<(), ProvisionError> {
        let name = self.spec.paths.name.host_name();
        let hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{name}\n{names}"
        );
        self.replace("/etc/hosts", hosts.as_bytes())?;
        self.replace("/etc/hostname", format!("{name}\n").as_bytes())
    }

    /// Programs that clients and other programs call by path, where the image
    /// has none: the guest answers to these names.
    fn programs(&self) -> Result<(), ProvisionError> {
        let missing = |places: &[&str]| !places.iter().any(|p| self.rootfs.exists(p.as_ref()));
        if missing(&SFTP_SERVERS) {
            self.dir("/usr/lib/openssh", self.root(0o755), self.root(0o755))?;
            self.symlink(SFTP_SERVERS[0])?;
        }
        if missing(&["/usr/bin/scp", "/bin/scp", "/usr/local/bin/scp"]) {
            self.dir("/usr/bin", self.root(0o755), self.root(0o755))?;
            self.symlink("/usr/bin/scp")?;
        }
        Ok(())
    }

    /// Lets the session user become root with the image's sudo, if that is asked
    /// for and there is one (`sudoers(5)`).
    fn sudo(&self, user: &SessionUser) -> Result<(), ProvisionError> {
        let has = || {
            ["/usr/bin/sudo", "/bin/sudo"]
                .map(Path::new)
                .iter()
                .any(|p| self.rootfs.exists(p))
        };
        if !self.spec.security.sudo || !is_plain(&user.name) || !has() {
            return Ok(());
        }
        self.dir("/etc/sudoers.d", self.root(0o750), self.root(0o755))?;
        let rule = format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", user.name);
        self.rootfs
            .replace(SUDOERS.as_ref(), rule.as_bytes(), self.root(0o440))
            .map_err(|source| file(SUDOERS, source))
    }

    fn symlink(&self, path: &str) -> Result<(), ProvisionError> {
        self.rootfs
            .link(path.as_ref(), guest::PATH)
            .map_err(|source| file(path, source))
    }
}

/// Where distributions keep their sftp-server; the first is where Debian does.
pub const SFTP_SERVERS: [&str; 6] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
    "/usr/local/libexec/sftp-server",
];

/// What sudo reads for the session user.
const SUDOERS: &str = "/etc/sudoers.d/podspawn";

/// A name that means itself in sudoers(5).
fn is_plain(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn file(path: &str, source: io::Error) -> ProvisionError {
    ProvisionError::File {
        path: path.into(),
        source,
    }
}

/// The account that an image configuration's `User` means: `user`, `uid`,
/// `user:group` or `uid:gid` (OCI image configuration, `config.User`).
pub(super) fn named(passwd: &[u8], wanted: &str, group: &[u8]) -> Option<Account> {
    let (user, explicit) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let uid: Option<u32> = user.parse().ok();
    let found = accounts::accounts(passwd).find(|a| a.name == user || Some(a.uid) == uid);
    let mut account = found.or_else(|| uid.map(|uid| bare(uid, 0)))?;
    if let Some(name) = explicit {
        account.gid = accounts::group_id(group, name)?;
    }
    Some(account)
}

/// An id that the image has no account for.
fn bare(uid: u32, gid: u32) -> Account {
    let name = if uid == 0 {
        "root".to_owned()
    } else {
        uid.to_string()
    };
    let home = if uid == 0 { "/root" } else { "/" };
    Account {
        name,
        uid,
        gid,
        home: home.into(),
        shell: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_user_is_a_name_a_number_or_a_pair() {
        let passwd = b"root:x:0:0::/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n";
        let group = b"root:x:0:\ndata:x:99:\n";
        let id = |wanted| named(passwd, wanted, group).map(|a| (a.uid, a.gid));
        assert_eq!(id("postgres"), Some((70, 70)));
        assert_eq!(id("70"), Some((70, 70)));
        assert_eq!(id("70:data"), Some((70, 99)));
        assert_eq!(id("1234:5"), Some((1234, 5)));
        assert_eq!(id("nobody"), None);
        assert_eq!(id("root:nogroup"), None);
    }
}
