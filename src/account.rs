//! Who runs this process: the entry in the host's user database, and the
//! directories that follow from it and from the environment.
//!
//! Runs in every verb, before any namespace is entered. The name decides which
//! of the administrator's per-user files applies, so it comes from the user
//! database and never from `$USER`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

/// An entry of the host's user database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name; never empty, without `/`, and not `.` or `..`.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Why it is not clear who runs this process.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The user database did not answer.
    #[error("cannot look up {who} in the user database")]
    Lookup {
        /// The user, by id or name.
        who: String,
        /// Why.
        source: nix::errno::Errno,
    },
    /// There is no such entry.
    #[error("{0} is not in the user database")]
    Unknown(String),
    /// The name of an entry cannot be the name of a file.
    #[error("the user name {0:?} cannot be used")]
    Name(String),
    /// Another user was asked for.
    #[error("this process belongs to user {actual}, not to {wanted}")]
    Other {
        /// Who was asked for.
        wanted: String,
        /// Who it is.
        actual: u32,
    },
}

impl Account {
    /// The user that this process belongs to.
    ///
    /// # Errors
    ///
    /// When the user database does not know.
    pub fn of_process() -> Result<Self, AccountError> {
        let uid = geteuid();
        let who = || format!("user id {uid}");
        let user = User::from_uid(uid)
            .map_err(|source| AccountError::Lookup { who: who(), source })?
            .ok_or_else(|| AccountError::Unknown(who()))?;
        Self::new(user)
    }

    /// The user of this name, who must be the one that this process belongs to:
    /// `--user` chooses between names of one id and nothing else.
    ///
    /// # Errors
    ///
    /// When the user database does not know, or the user is another one.
    pub fn of_process_as(name: &str) -> Result<Self, AccountError> {
        let user = User::from_name(name)
            .map_err(|source| AccountError::Lookup {
                who: format!("{name:?}"),
                source,
            })?
            .ok_or_else(|| AccountError::Unknown(format!("{name:?}")))?;
        if user.uid != geteuid() {
            let wanted = name.to_owned();
            return Err(AccountError::Other {
                wanted,
                actual: geteuid().as_raw(),
            });
        }
        Self::new(user)
    }

    fn new(user: User) -> Result<Self, AccountError> {
        if matches!(&*user.name, "" | "." | "..") || user.name.contains(['/', '\0']) {
            return Err(AccountError::Name(user.name));
        }
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
        })
    }
}

/// Where a user's files are, by the XDG base directory specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Home directory.
    pub home: PathBuf,
    /// For data: `$XDG_DATA_HOME` or `~/.local/share`.
    pub data: PathBuf,
    /// For configuration: `$XDG_CONFIG_HOME` or `~/.config`.
    pub config: PathBuf,
    /// For what ends with the login: `$XDG_RUNTIME_DIR`, if it is set.
    pub runtime: Option<PathBuf>,
}

impl Directories {
    /// The directories of `account`, from the environment of this process.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        Self::new(account, |name| std::env::var_os(name))
    }

    /// The same with any environment. What is not an absolute path is taken for
    /// unset, as the specification says.
    pub fn new(account: &Account, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| {
            variable(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let home = path("HOME").unwrap_or_else(|| account.home.clone());
        Self {
            data: path("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")),
            config: path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            runtime: path("XDG_RUNTIME_DIR"),
            home,
        }
    }

    /// The user's own configuration file.
    #[must_use]
    pub fn own_config(&self) -> PathBuf {
        self.config.join("podspawn/config.yaml")
    }

    /// The store's root where the configuration names none.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("podspawn")
    }
}

/// The administrator's file for `account`, in the directory that `config.yaml`
/// is in.
#[must_use]
pub fn per_user_config(config: &Path, account: &Account) -> PathBuf {
    let directory = config.parent().unwrap_or(Path::new("/"));
    directory
        .join("users")
        .join(format!("{}.yaml", account.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Account {
        Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/alice".into(),
        }
    }

    fn directories(variables: &[(&str, &str)]) -> Directories {
        Directories::new(&alice(), |name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_user_database_says_where_home_is_when_the_environment_does_not() {
        let directories = directories(&[]);
        assert_eq!(
            directories.store(),
            Path::new("/home/alice/.local/share/podspawn")
        );
        assert_eq!(
            directories.own_config(),
            Path::new("/home/alice/.config/podspawn/config.yaml")
        );
        assert_eq!(directories.runtime, None);
    }

    #[test]
    fn relative_directories_are_taken_for_unset() {
        let directories = directories(&[
            ("HOME", "/h"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_RUNTIME_DIR", ""),
        ]);
        assert_eq!(directories.store(), Path::new("/h/.local/share/podspawn"));
        assert_eq!(
            directories.own_config(),
            Path::new("/c/podspawn/config.yaml")
        );
        assert_eq!(directories.runtime, None);
    }

    #[test]
    fn this_process_has_an_account() {
        let account = Account::of_process().unwrap();
        assert_eq!(Account::of_process_as(&account.name).unwrap(), account);
        let other = if account.uid == 0 { "nobody" } else { "root" };
        assert!(matches!(
            Account::of_process_as(other),
            Err(AccountError::Other { .. })
        ));
        let unknown = Account::of_process_as("no such user");
        assert!(matches!(unknown, Err(AccountError::Unknown(_))));
    }

    #[test]
    fn the_per_user_file_is_beside_the_configuration() {
        let file = per_user_config(Path::new("/etc/podspawn/config.yaml"), &alice());
        assert_eq!(file, Path::new("/etc/podspawn/users/alice.yaml"));
    }
}
