//! The text of sshd's PAM stack, with and without the session module. Pure.
//!
//! Two lines, and both must be there: without the first, which leaves a marker,
//! the second denies. The first stands before everything else, because a stack
//! may end early; the second after everything else, because pam_systemd has to
//! have made the session before the pod is looked for. Order within one type is
//! all that PAM goes by.

use std::path::Path;

/// The module's file.
pub const MODULE: &str = "pam_podspawn.so";

/// Where the module looks for podspawn by itself.
const HELPER: &str = "/usr/bin/podspawn";

/// The two lines, for a podspawn at `program`.
fn lines(program: &Path) -> [String; 2] {
    let helper = if program == Path::new(HELPER) {
        String::new()
    } else {
        format!(" helper={}", program.display())
    };
    ["auth       optional     ", "session    required     "]
        .map(|start| format!("{start}{MODULE}{helper}"))
}

/// What a stack says of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Nothing.
    Without,
    /// Both lines, each in its place.
    With,
    /// Something else.
    Broken,
}

/// The stack with both lines.
#[must_use]
pub fn with_module(text: &str, program: &Path) -> String {
    let [auth, session] = lines(program);
    let bare = without_module(text);
    let end = if bare.is_empty() || bare.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    // A comment at the top stays at the top.
    let at = bare
        .split_inclusive('\n')
        .take_while(|line| line.trim().is_empty() || line.starts_with('#'))
        .map(str::len)
        .sum();
    let (head, rest) = bare.split_at(at);
    format!("{head}{auth}\n{rest}{end}{session}\n")
}

/// The stack without any line of the module.
#[must_use]
pub fn without_module(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| !is_ours(line))
        .collect()
}

/// What the stack says of the module.
#[must_use]
pub fn state(text: &str, program: &Path) -> Stack {
    if !text.lines().any(is_ours) {
        Stack::Without
    } else if with_module(text, program) == text {
        Stack::With
    } else {
        Stack::Broken
    }
}

fn is_ours(line: &str) -> bool {
    let code = line.split('#').next().unwrap_or_default();
    code.split_whitespace()
        .any(|word| word == MODULE || word.ends_with("/pam_podspawn.so"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEBIAN: &str = "# PAM configuration for the Secure Shell service\n\n\
        # Standard Un*x authentication.\n@include common-auth\naccount required pam_nologin.so\n\
        @include common-session\nsession required pam_limits.so\n@include common-password\n";

    #[test]
    fn the_first_line_is_first_and_the_last_is_last() {
        let program = Path::new(HELPER);
        let with = with_module(DEBIAN, program);
        let code: Vec<&str> = with
            .lines()
            .filter(|l| !l.starts_with('#') && !l.is_empty())
            .collect();
        assert_eq!(
            code.first(),
            Some(&"auth       optional     pam_podspawn.so")
        );
        assert_eq!(
            code.last(),
            Some(&"session    required     pam_podspawn.so")
        );
        assert_eq!(with_module(&with, program), with);
        assert_eq!(without_module(&with), DEBIAN);
        let elsewhere = with_module(&with, Path::new("/opt/podspawn"));
        assert_eq!(
            elsewhere
                .matches("pam_podspawn.so helper=/opt/podspawn\n")
                .count(),
            2
        );
        assert_eq!(state(&with, Path::new("/opt/podspawn")), Stack::Broken);
    }

    #[test]
    fn a_stack_is_with_or_without_or_broken() {
        let program = Path::new(HELPER);
        let state = |text: &str| super::state(text, program);
        assert_eq!(state(DEBIAN), Stack::Without);
        assert_eq!(state("# auth optional pam_podspawn.so\n"), Stack::Without);
        let with = with_module(DEBIAN, program);
        assert_eq!(state(&with), Stack::With);
        assert_eq!(
            state(&with.replace("auth       optional", "auth required")),
            Stack::Broken
        );
        assert_eq!(
            state(&with.replace(
                "session    required     pam_pod",
                "session optional pam_pod"
            )),
            Stack::Broken
        );
        assert_eq!(
            state(&format!("{with}session required pam_env.so\n")),
            Stack::Broken
        );
        assert_eq!(
            state("session required /lib/security/pam_podspawn.so debug\n"),
            Stack::Broken
        );
    }

    proptest! {
        #[test]
        fn what_the_administrator_wrote_stays(text in "([ -~]{0,30}\n){0,6}") {
            prop_assert_eq!(without_module(&with_module(&text, Path::new(HELPER))), text);
        }
    }
}
