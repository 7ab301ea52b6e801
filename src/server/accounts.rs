//! Accounts of container users: members of the group podspawn whose login shell
//! is podspawn.
//!
//! Runs as root. Accounts are made and removed by the distribution's own tools,
//! which know of shadow files, locks and databases; what is decided here is pure.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Group, User};
use podspawn_runtime::idmap::Allotment;
use rustix::process::{Pid, Signal, kill_process};

use super::{GROUP, files, home, keys, program};
use crate::exit::Failure;
use crate::login_shell;

/// How many subordinate ids a user gets: what distributions give, and images expect.
const SUBIDS: u32 = 65_536;

/// A container user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory on the host.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

impl ContainerUser {
    fn of(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            shell: user.shell,
        }
    }

    /// Their subordinate user and group ids.
    #[must_use]
    pub fn subids(&self) -> [Allotment; 2] {
        ["/etc/subuid", "/etc/subgid"].map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            Allotment::parse(&text, &self.name, self.uid)
        })
    }
}

/// Refuses what cannot be a user's name in a path or on a command line.
///
/// # Errors
///
/// When it is none.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.@-".contains(c);
    if name.is_empty()
        || name.len() > 128
        || name.starts_with(['-', '.'])
        || !name.chars().all(fits)
    {
        return Err(Failure::new(format!("{name:?} cannot be a user's name")));
    }
    Ok(())
}

/// Refuses what a new user should not be called, as distributions do.
fn check_new_name(name: &str) -> Result<(), Failure> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if starts && name.len() <= 32 && name.chars().all(fits) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{name:?} cannot be a new user's name: up to 32 of a-z, 0-9, _ and -, beginning with a letter"
    )))
}

/// The user of this name, who must be a container user.
///
/// # Errors
///
/// When there is none, or it is somebody else's account.
pub fn get(name: &str) -> Result<ContainerUser, Failure> {
    check_name(name)?;
    list()?
        .into_iter()
        .find(|user| user.name == name)
        .ok_or_else(|| Failure::new(format!("{name} is no container user")))
}

/// All container users, by name.
///
/// # Errors
///
/// When the user database cannot be read.
pub fn list() -> Result<Vec<ContainerUser>, Failure> {
    let lookup = |e: nix::errno::Errno| Failure::new(format!("cannot look up users: {e}"));
    let Some(group) = Group::from_name(GROUP).map_err(lookup)? else {
        return Ok(Vec::new());
    };
    let local = files::read(Path::new("/etc/passwd"))?.unwrap_or_default();
    let mut names = group.mem;
    names.extend(with_primary_group(&local, group.gid.as_raw()));
    names.sort();
    names.dedup();
    let mut users = Vec::new();
    for name in names {
        users.extend(
            User::from_name(&name)
                .map_err(lookup)?
                .map(ContainerUser::of),
        );
    }
    Ok(users)
}

fn with_primary_group(passwd: &str, gid: u32) -> Vec<String> {
    podspawn_runtime::accounts::accounts(passwd.as_bytes())
        .filter(|account| account.gid == gid)
        .map(|account| account.name)
        .collect()
}

/// Makes an account with podspawn as its shell.
///
/// # Errors
///
/// When the name is taken, or one of the steps fails: the account is removed then.
pub fn add(name: &str, shell: &Path) -> Result<ContainerUser, Failure> {
    check_new_name(name)?;
    if Group::from_name(GROUP).ok().flatten().is_none() {
        return Err(Failure::new(format!(
            "there is no group {GROUP}; first: podspawn server-setup"
        )));
    }
    if User::from_name(name).ok().flatten().is_some() {
        return Err(Failure::new(format!(
            "there is a user {name}, who is no container user and stays as they are; \
             to make them one: usermod --append --groups {GROUP} {name}"
        )));
    }
    let home = default_home(&program::must("useradd", ["-D"])?).join(name);
    if fs::symlink_metadata(&home).is_ok() {
        return Err(Failure::new(format!(
            "{} is there already; move it away first",
            home.display()
        )));
    }
    let arguments = [
        "--user-group",
        "--no-create-home",
        "--groups",
        GROUP,
        "--comment",
        "",
        "--password",
        "*",
    ];
    let mut arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    arguments.extend([
        "--shell".as_ref(),
        shell.as_os_str(),
        "--home-dir".as_ref(),
        home.as_os_str(),
        name.as_ref(),
    ]);
    program::must("useradd", arguments)?;
    let made = get(name).and_then(|user| finish(&user).map(|()| user));
    if made.is_err() {
        let _ = program::run("userdel", ["--force", name]);
        let _ = fs::remove_dir_all(&home);
    }
    made
}

fn finish(user: &ContainerUser) -> Result<(), Failure> {
    let options = [("--add-subuids", 0), ("--add-subgids", 1)];
    for (option, which) in options {
        if user.subids()[which].is_empty() {
            let start = free_range(
                &fs::read_to_string("/etc/subuid").unwrap_or_default(),
                &fs::read_to_string("/etc/subgid").unwrap_or_default(),
            )?;
            // Both files get the same range where both lack one.
            let range = format!("{start}-{}", start + (SUBIDS - 1));
            if which == 0 && user.subids()[1].is_empty() {
                program::must(
                    "usermod",
                    ["--add-subuids", &range, "--add-subgids", &range, &user.name],
                )?;
            } else {
                program::must("usermod", [option, &range, &user.name])?;
            }
        }
    }
    home::make(&user.home, user.uid, user.gid)?;
    linger(&user.name, true)
}

/// Where `useradd -D` says homes are.
fn default_home(defaults: &str) -> PathBuf {
    let home = defaults.lines().find_map(|line| line.strip_prefix("HOME="));
    home.filter(|h| h.starts_with('/'))
        .unwrap_or("/home")
        .into()
}

/// The start of a range of ids that no other in these files overlaps.
fn free_range(subuid: &str, subgid: &str) -> Result<u32, Failure> {
    let ends = subuid.lines().chain(subgid.lines()).filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        let start: u64 = fields.next()?.parse().ok()?;
        Some(start + fields.next()?.parse::<u64>().ok()?)
    });
    let start = ends.max().unwrap_or(0).max(100_000);
    // The highest ids are the kernel's and systemd's.
    u32::try_from(start)
        .ok()
        .filter(|start| *start < 4_000_000_000)
        .ok_or_else(|| Failure::new("no subordinate ids are left; see /etc/subuid"))
}

/// Whether the user's manager runs without a login; nothing where there is no systemd.
fn linger(name: &str, on: bool) -> Result<(), Failure> {
    if !Path::new("/run/systemd/system").is_dir() || program::find("loginctl").is_none() {
        return Ok(());
    }
    let verb = if on {
        "enable-linger"
    } else {
        "disable-linger"
    };
    program::must("loginctl", [verb, name]).map(drop)
}

/// Ends everything of a user's, and removes the account and its keys; with `with_home`, all
/// files of theirs too. Else the home is root's from then on, because somebody else may get
/// the same ids.
///
/// # Errors
///
/// When a step fails. It can be tried again.
pub fn remove(user: &ContainerUser, key_dir: &Path, with_home: bool) -> Result<(), Failure> {
    if user.uid == 0 || !login_shell::is_this_program(&user.shell) {
        return Err(Failure::new(format!(
            "the shell of {0} is {1}, so add-user did not make this account; \
             to take it out of the group: gpasswd --delete {0} {GROUP}",
            user.name,
            user.shell.display()
        )));
    }
    // From here on nobody logs in.
    let file = keys::path(key_dir, &user.name)?;
    files::replace(&files::Change {
        path: file,
        text: None,
    })?;
    let subids = user.subids();
    let _ = linger(&user.name, false);
    if Path::new("/run/systemd/system").is_dir() {
        let _ = program::run("loginctl", ["terminate-user", &user.name]);
    }
    end_processes(user.uid, &subids[0])?;
    program::must("userdel", ["--force", &user.name])?;
    for path in ["/etc/subuid", "/etc/subgid"] {
        // userdel of some releases leaves the ranges behind.
        if let Some(text) = files::read(Path::new(path))? {
            let text = Some(without_user(&text, &user.name));
            for change in files::pending(vec![files::Change {
                path: path.into(),
                text,
            }])? {
                files::replace(&change)?;
            }
        }
    }
    if with_home {
        home::remove(&user.home)?;
        home::remove(Path::new(&format!("/tmp/podspawn-{}", user.uid)))
    } else {
        home::keep(&user.home)
    }
}

fn without_user(text: &str, name: &str) -> String {
    let of = |line: &&str| line.split(':').next() != Some(name);
    text.split_inclusive('\n').filter(of).collect()
}

/// Kills until nothing runs with the user's ids.
fn end_processes(uid: u32, subuids: &Allotment) -> Result<(), Failure> {
    for _ in 0..100 {
        let mut any = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse().ok())
                .and_then(Pid::from_raw)
            else {
                continue;
            };
            let Ok(stat) = entry.metadata() else { continue };
            if stat.uid() == uid || subuids.contains(stat.uid()) {
                any = true;
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if !any {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(Failure::new(format!(
        "processes of user id {uid} do not end"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_users() {
        for name in ["alice", "_x", "a-b_1"] {
            assert!(
                check_new_name(name).is_ok() && check_name(name).is_ok(),
                "{name}"
            );
        }
        for name in [
            "",
            "Alice",
            "1a",
            "a b",
            "a.b",
            "-r",
            "../a",
            "a/b",
            "ä",
            &"a".repeat(33),
        ] {
            assert!(check_new_name(name).is_err(), "{name}");
        }
        // A directory service has others.
        assert!(check_name("Alice.B@example.org").is_ok());
    }

    #[test]
    fn a_range_overlaps_no_other() {
        let free = |uid, gid| free_range(uid, gid).ok();
        assert_eq!(free("", ""), Some(100_000));
        assert_eq!(
            free("a:100000:65536\n", "a:100000:65536\nb:165536:10\n"),
            Some(165_546)
        );
        assert_eq!(free("junk\na:x:y\n", "a:1:2\n"), Some(100_000));
        assert_eq!(free("a:4294900000:65536\n", ""), None);
    }

    #[test]
    fn only_the_users_own_ranges_go() {
        let text = "alice:1:2\nalice2:3:4\nbob:5:6\nalice:7:8";
        assert_eq!(without_user(text, "alice"), "alice2:3:4\nbob:5:6\n");
    }

    #[test]
    fn the_distribution_says_where_homes_are() {
        assert_eq!(
            default_home("GROUP=100\nHOME=/srv/home\n"),
            Path::new("/srv/home")
        );
        assert_eq!(default_home("GROUP=100\n"), Path::new("/home"));
    }

    #[test]
    fn members_by_primary_group_are_found() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbob:x:1001:990::/home/bob:/bin/sh\nbroken\n";
        assert_eq!(with_primary_group(passwd, 990), ["bob"]);
    }
}
