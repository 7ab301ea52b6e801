//! Which host ids a pod's user namespace shows, and as what.
//!
//! The user appears as themself and every other id of the image is one of
//! their subordinate ids: inside, uid U is host uid U, and `0..U`, `U+1..` are
//! the ranges that `/etc/subuid` gives (`subuid(5)`, `user_namespaces(7)`).
//! A user without such ranges gets a map of one id.
//!
//! [`Allotment`] and [`IdMap`] are pure; [`write()`] runs the host's setuid
//! helpers, in the launcher; [`enter`] moves the calling process, for the
//! commands that touch the store.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use crate::sys::{self, Forked};

/// One line of `/proc/PID/uid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// The subordinate ids of one user, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allotment(Vec<(u32, u32)>);

impl Allotment {
    /// The ranges of `user` or `uid` in the text of `/etc/subuid` or
    /// `/etc/subgid` (`NAME:START:COUNT` lines); lines that make no sense are
    /// skipped, as `newuidmap` does.
    #[must_use]
    pub fn parse(text: &str, user: &str, uid: u32) -> Self {
        let mut ranges = Vec::new();
        for line in text.lines() {
            let mut fields = line.trim().split(':');
            let (Some(name), Some(start), Some(count), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if name != user && name.parse() != Ok(uid) {
                continue;
            }
            let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else {
                continue;
            };
            if count > 0 && start.checked_add(count).is_some() {
                ranges.push((start, count));
            }
        }
        Self(ranges)
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this id on the host is one of them.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0
            .iter()
            .any(|(start, count)| id.checked_sub(*start).is_some_and(|n| n < *count))
    }

    /// The map that keeps `id` and fills the ids around it from the allotment.
    #[must_use]
    pub fn map_around(&self, id: u32) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut inside = 0u32;
        let mut kept = false;
        for &(mut outside, mut count) in &self.0 {
            if !kept && u64::from(inside) + u64::from(count) > u64::from(id) {
                let before = id - inside;
                if before > 0 {
                    extents.push(Extent {
                        inside,
                        outside,
                        count: before,
                    });
                }
                extents.push(Extent {
                    inside: id,
                    outside: id,
                    count: 1,
                });
                kept = true;
                outside += before;
                count -= before;
                // The last id has nothing above it.
                let Some(next) = id.checked_add(1) else {
                    return extents;
                };
                inside = next;
            }
            let count = count.min(u32::MAX - inside);
            if count > 0 {
                extents.push(Extent {
                    inside,
                    outside,
                    count,
                });
                inside += count;
            }
        }
        if !kept {
            extents.push(Extent {
                inside: id,
                outside: id,
                count: 1,
            });
        }
        extents
    }
}

/// The user and group map of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The user map.
    pub uids: Vec<Extent>,
    /// The group map.
    pub gids: Vec<Extent>,
}

impl IdMap {
    /// The map for a user with these ids and allotments. Where either allotment
    /// is missing, the single-id map: a map of one kind only would leave half of
    /// every file's ownership out.
    #[must_use]
    pub fn new(uid: u32, gid: u32, subuids: &Allotment, subgids: &Allotment) -> Self {
        if subuids.is_empty() || subgids.is_empty() {
            return Self::single(uid, gid);
        }
        Self {
            uids: subuids.map_around(uid),
            gids: subgids.map_around(gid),
        }
    }

    /// The map of one user and one group id.
    #[must_use]
    pub fn single(uid: u32, gid: u32) -> Self {
        Self {
            uids: vec![Extent {
                inside: uid,
                outside: uid,
                count: 1,
            }],
            gids: vec![Extent {
                inside: gid,
                outside: gid,
                count: 1,
            }],
        }
    }

    /// The map of a user of this host, from `/etc/subuid` and `/etc/subgid`.
    ///
    /// # Errors
    ///
    /// When one of the files exists and cannot be read.
    pub fn of_user(name: &str, uid: u32, gid: u32) -> Result<Self, IdMapError> {
        Ok(Self::new(
            uid,
            gid,
            &read("/etc/subuid", name, uid)?,
            &read("/etc/subgid", name, uid)?,
        ))
    }

    /// Whether only the user's own id is mapped.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.uids.len() == 1 && self.uids[0].count == 1
    }

    /// Whether the namespace has this user id.
    #[must_use]
    pub fn has_uid(&self, id: u32) -> bool {
        contains(&self.uids, id)
    }

    /// Whether the namespace has this group id.
    #[must_use]
    pub fn has_gid(&self, id: u32) -> bool {
        contains(&self.gids, id)
    }
}

fn contains(extents: &[Extent], id: u32) -> bool {
    extents
        .iter()
        .any(|e| id.checked_sub(e.inside).is_some_and(|n| n < e.count))
}

/// Why a user namespace could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// A subordinate id file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A helper is not installed.
    #[error("cannot run {0}; install the package uidmap")]
    NoHelper(&'static str),
    /// A helper could not be started.
    #[error("cannot run {program}")]
    Helper {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A helper refused the map.
    #[error("{program} refused the subordinate ids: {message}")]
    Refused {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// What it said, first line.
        message: String,
    },
    /// The kernel refused the single-id map.
    #[error("cannot write the id map of the user namespace")]
    Write(#[source] io::Error),
    /// No user namespace could be made.
    #[error(
        "cannot create a user namespace; this host may forbid them to users (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
    )]
    Unshare(#[source] io::Error),
}

fn read(path: &str, name: &str, uid: u32) -> Result<Allotment, IdMapError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Allotment::parse(
            &String::from_utf8_lossy(&bytes),
            name,
            uid,
        )),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Allotment::default()),
        Err(source) => Err(IdMapError::Read {
            path: path.into(),
            source,
        }),
    }
}

/// Writes `map` for the user namespace of `pid`, a child of the caller that has
/// just been put into one.
///
/// # Errors
///
/// When a helper is missing or refuses, or the kernel does.
pub fn write(pid: Pid, map: &IdMap) -> Result<(), IdMapError> {
    if map.is_single() {
        return write_single(pid, map).map_err(IdMapError::Write);
    }
    // Each helper takes milliseconds, nearly all of it starting up.
    let users = start("newuidmap", pid, &map.uids)?;
    let groups = start("newgidmap", pid, &map.gids);
    let users = finish("newuidmap", users);
    let groups = groups.and_then(|child| finish("newgidmap", child));
    users.and(groups)
}

fn write_single(pid: Pid, map: &IdMap) -> io::Result<()> {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let line = |e: &Extent| format!("{} {} 1", e.inside, e.outside);
    // The kernel takes an unprivileged gid map only once setgroups is off.
    std::fs::write(proc.join("setgroups"), "deny")?;
    std::fs::write(proc.join("uid_map"), line(&map.uids[0]))?;
    std::fs::write(proc.join("gid_map"), line(&map.gids[0]))
}

fn start(program: &'static str, pid: Pid, extents: &[Extent]) -> Result<Child, IdMapError> {
    let mut command = Command::new(format!("/usr/bin/{program}"));
    command.arg(pid.as_raw_nonzero().to_string());
    for e in extents {
        command.args([e.inside, e.outside, e.count].map(|n| n.to_string()));
    }
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdMapError::NoHelper(program),
        _ => IdMapError::Helper { program, source },
    })
}

fn finish(program: &'static str, child: Child) -> Result<(), IdMapError> {
    let output = child
        .wait_with_output()
        .map_err(|source| IdMapError::Helper { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text.lines().next().unwrap_or("no reason given").to_owned();
    Err(IdMapError::Refused { program, message })
}

/// Moves this process, which must have a single thread, into a new user
/// namespace with `map`, where it holds all capabilities.
///
/// # Errors
///
/// When the host forbids user namespaces, or as [`write()`].
pub fn enter(map: &IdMap) -> Result<(), IdMapError> {
    use rustix::process::{WaitOptions, getpid, waitpid};

    let me = getpid();
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| IdMapError::Write(e.into()))?;
    let (said_read, said_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| IdMapError::Write(e.into()))?;
    // The helpers must run outside of the namespace whose map they write.
    match sys::fork().map_err(IdMapError::Unshare)? {
        Forked::Child => {
            drop((go_write, said_read));
            let mut byte = [0];
            if rustix::io::read(&go_read, &mut byte) == Ok(1)
                && let Err(e) = write(me, map)
            {
                let line = crate::error::chain(&e);
                let _ = rustix::io::write(&said_write, line.as_bytes());
            }
            sys::exit(0);
        }
        Forked::Parent(helper) => {
            drop((go_read, said_write));
            let unshared = crate::sys::unshare_user().map_err(IdMapError::Unshare);
            if unshared.is_ok() {
                let _ = rustix::io::write(&go_write, b"g");
            }
            drop(go_write);
            let mut text = Vec::new();
            let _ = io::Read::read_to_end(&mut std::fs::File::from(said_read), &mut text);
            let _ = waitpid(Some(helper), WaitOptions::empty());
            unshared?;
            if text.is_empty() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            Err(IdMapError::Write(io::Error::other(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allotment(ranges: &[(u32, u32)]) -> Allotment {
        Allotment(ranges.to_vec())
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text =
            "alice:100000:65536\n# x\nbob:165536:65536\n1000:300000:10\nalice:1:2:3\nalice:x:1\n";
        assert_eq!(
            Allotment::parse(text, "alice", 1000).0,
            [(100_000, 65_536), (300_000, 10)]
        );
        assert_eq!(Allotment::parse(text, "carol", 7).0, []);
    }

    #[test]
    fn the_user_keeps_their_id() {
        let map = allotment(&[(100_000, 65_536)]).map_around(1000);
        assert_eq!(
            map,
            [
                Extent {
                    inside: 0,
                    outside: 100_000,
                    count: 1000
                },
                Extent {
                    inside: 1000,
                    outside: 1000,
                    count: 1
                },
                Extent {
                    inside: 1001,
                    outside: 101_000,
                    count: 64_536
                },
            ]
        );
    }

    #[test]
    fn an_id_beyond_the_allotment_stands_alone() {
        let map = allotment(&[(100_000, 65_536)]).map_around(2_000_000);
        assert_eq!(
            map,
            [
                Extent {
                    inside: 0,
                    outside: 100_000,
                    count: 65_536
                },
                Extent {
                    inside: 2_000_000,
                    outside: 2_000_000,
                    count: 1
                },
            ]
        );
    }

    #[test]
    fn one_kind_missing_means_a_single_id() {
        let map = IdMap::new(1000, 1000, &allotment(&[(1, 2)]), &Allotment::default());
        assert!(map.is_single());
        assert!(map.has_uid(1000) && !map.has_uid(0));
    }

    proptest! {
        #[test]
        fn maps_never_overlap_and_use_every_id(
            ranges in prop::collection::vec((1u32..1 << 30, 1u32..100_000), 1..5),
            id in 0u32..400_000,
        ) {
            let given: u64 = ranges.iter().map(|r| u64::from(r.1)).sum();
            let map = allotment(&ranges).map_around(id);
            let mut end = 0u64;
            let mut sorted = map.clone();
            sorted.sort_by_key(|e| e.inside);
            for e in &sorted {
                prop_assert!(u64::from(e.inside) >= end);
                end = u64::from(e.inside) + u64::from(e.count);
            }
            prop_assert_eq!(map.iter().map(|e| u64::from(e.count)).sum::<u64>(), given + 1);
            let kept = Extent { inside: id, outside: id, count: 1 };
            prop_assert!(map.contains(&kept));
        }
    }
}
