//! What sessions look for in an image, where it may be, and which package has it.
//!
//! Pure: the paths of [`paths`] are looked for elsewhere, and [`judge`] is given
//! those that are there.

use podspawn_runtime::supervisor::SFTP_SERVERS;

use super::{Finding, State};

/// One thing that sessions look for.
struct Wanted {
    name: &'static str,
    paths: &'static [&'static str],
    /// Names of its package for [`MANAGERS`], in their order.
    packages: [&'static str; 5],
    otherwise: Otherwise,
}

/// What happens where the image has none.
#[derive(Clone, Copy)]
enum Otherwise {
    /// podspawn brings one.
    Injected(&'static str),
    /// Something does not work.
    Lost(&'static str),
}

/// Package managers by their program, with how they install.
const MANAGERS: [(&[&str], &str); 5] = [
    (
        &["/usr/bin/apt-get", "/bin/apt-get"],
        "apt-get install -y --no-install-recommends",
    ),
    (&["/sbin/apk", "/usr/sbin/apk", "/usr/bin/apk"], "apk add"),
    (
        &["/usr/bin/dnf", "/usr/bin/microdnf", "/usr/bin/yum"],
        "dnf install -y",
    ),
    (&["/usr/bin/zypper"], "zypper install -y"),
    (&["/usr/bin/pacman"], "pacman -S --noconfirm"),
];

const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];

const OTHER_SHELLS: [&str; 9] = [
    "/bin/sh",
    "/usr/bin/sh",
    "/bin/ash",
    "/bin/dash",
    "/bin/zsh",
    "/usr/bin/zsh",
    "/usr/bin/fish",
    "/bin/ksh",
    "/busybox/sh",
];

/// A C library whose C locale speaks UTF-8 without a file.
const MUSL: [&str; 3] = [
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib/ld-musl-riscv64.so.1",
];

const WANTED: [Wanted; 7] = [
    Wanted {
        name: "sftp-server",
        paths: &SFTP_SERVERS,
        packages: [
            "openssh-sftp-server",
            "openssh-sftp-server",
            "openssh-server",
            "openssh-server",
            "openssh",
        ],
        otherwise: Otherwise::Injected("sftp and scp work"),
    },
    Wanted {
        name: "scp",
        paths: &["/usr/bin/scp", "/bin/scp", "/usr/local/bin/scp"],
        packages: [
            "openssh-client",
            "openssh-client-default",
            "openssh-clients",
            "openssh-clients",
            "openssh",
        ],
        otherwise: Otherwise::Injected("scp -O works"),
    },
    Wanted {
        name: "rsync",
        paths: &["/usr/bin/rsync", "/bin/rsync", "/usr/local/bin/rsync"],
        packages: ["rsync"; 5],
        otherwise: Otherwise::Lost("rsync to and from a pod ends with status 127"),
    },
    Wanted {
        name: "git",
        paths: &["/usr/bin/git", "/bin/git", "/usr/local/bin/git"],
        packages: ["git"; 5],
        otherwise: Otherwise::Lost("repositories in a pod cannot be cloned over ssh"),
    },
    Wanted {
        name: "UTF-8 locale",
        paths: &[
            "/usr/lib/locale/C.utf8",
            "/usr/lib/locale/C.UTF-8",
            "/usr/lib/locale/locale-archive",
            "/usr/lib/locale/en_US.utf8",
            MUSL[0],
            MUSL[1],
            MUSL[2],
        ],
        packages: [
            "libc-bin",
            "musl-locales",
            "glibc-langpack-en",
            "glibc-locale",
            "glibc",
        ],
        otherwise: Otherwise::Lost("programs that ask the C library take text for ASCII"),
    },
    Wanted {
        name: "xauth",
        paths: &["/usr/bin/xauth", "/usr/X11R6/bin/xauth", "/bin/xauth"],
        packages: ["xauth", "xauth", "xorg-x11-xauth", "xauth", "xorg-xauth"],
        otherwise: Otherwise::Injected("sessions bring their own cookies"),
    },
    Wanted {
        name: "terminfo",
        paths: &[
            "/usr/share/terminfo/x/xterm-256color",
            "/lib/terminfo/x/xterm-256color",
            "/etc/terminfo/x/xterm-256color",
        ],
        packages: [
            "ncurses-base",
            "ncurses-terminfo-base",
            "ncurses-base",
            "terminfo-base",
            "ncurses",
        ],
        otherwise: Otherwise::Injected("the host's is used"),
    },
];

/// Every path that [`judge`] wants to know of.
#[must_use]
pub fn paths() -> Vec<&'static str> {
    let managers = MANAGERS.iter().flat_map(|(programs, _)| *programs);
    let wanted = WANTED.iter().flat_map(|w| w.paths);
    BASH.iter()
        .chain(&OTHER_SHELLS)
        .chain(wanted)
        .chain(managers)
        .copied()
        .collect()
}

/// What it comes to that of [`paths`] these are there.
#[must_use]
pub fn judge(there: &[&str]) -> Vec<Finding> {
    let has = |path: &&&str| there.contains(*path);
    let manager = MANAGERS
        .iter()
        .position(|(programs, _)| programs.iter().any(|p| there.contains(p)));
    let mut findings = vec![shell(there, manager)];
    for wanted in &WANTED {
        let found = wanted.paths.iter().find(has);
        let (state, note) = match (found, wanted.otherwise) {
            (Some(path), _) => (State::Present, *path),
            (None, Otherwise::Injected(what)) => (State::Injected, what),
            (None, Otherwise::Lost(what)) => (State::Missing, what),
        };
        let fix = (state == State::Missing).then(|| fix(manager, wanted.packages));
        findings.push(Finding {
            name: wanted.name,
            state,
            needed: false,
            note: note.to_owned(),
            fix,
        });
    }
    findings
}

fn shell(there: &[&str], manager: Option<usize>) -> Finding {
    let find = |paths: &[&str]| {
        paths
            .iter()
            .find(|p| there.contains(p))
            .copied()
            .map(str::to_owned)
    };
    let (bash, other) = (find(&BASH), find(&OTHER_SHELLS));
    let (state, note, offer) = match (bash, other) {
        (Some(path), _) => (State::Present, path, false),
        (None, Some(path)) => (State::Present, format!("{path}; no bash"), true),
        (None, None) => (
            State::Missing,
            "neither shells nor commands work, only sftp and scp".into(),
            true,
        ),
    };
    Finding {
        name: "shell",
        state,
        needed: true,
        note,
        fix: offer.then(|| fix(manager, ["bash"; 5])),
    }
}

fn fix(manager: Option<usize>, packages: [&str; 5]) -> String {
    match manager {
        Some(n) => format!("{} {}", MANAGERS[n].1, packages[n]),
        None => "the image has no package manager: add it where the image is built".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        findings.iter().find(|f| f.name == name).unwrap()
    }

    #[test]
    fn an_empty_image_lacks_a_shell_and_is_told_how_to_get_one() {
        let findings = judge(&[]);
        assert!(find(&findings, "shell").fails());
        assert_eq!(find(&findings, "sftp-server").state, State::Injected);
        assert!(
            find(&findings, "shell")
                .fix
                .as_ref()
                .unwrap()
                .contains("no package manager")
        );
    }

    #[test]
    fn the_fix_is_that_of_the_images_own_package_manager() {
        let debian = judge(&["/bin/sh", "/usr/bin/apt-get"]);
        let fix = |findings: &[Finding], name| find(findings, name).fix.clone().unwrap();
        assert_eq!(
            fix(&debian, "rsync"),
            "apt-get install -y --no-install-recommends rsync"
        );
        let alpine = judge(&["/bin/sh", "/sbin/apk", "/lib/ld-musl-x86_64.so.1"]);
        assert_eq!(fix(&alpine, "git"), "apk add git");
        assert_eq!(find(&alpine, "UTF-8 locale").state, State::Present);
        assert_eq!(find(&alpine, "shell").note, "/bin/sh; no bash");
        assert!(alpine.iter().all(|f| !f.fails()));
    }

    #[test]
    fn everything_judged_is_looked_for() {
        let all = paths();
        for finding in judge(&all) {
            assert_eq!(finding.state, State::Present, "{}", finding.name);
        }
    }
}
