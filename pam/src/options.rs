//! The arguments of the module's lines in `/etc/pam.d/sshd`. Pure.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

/// How long the helper may take: it may have to pull an image.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What the administrator wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Members of this group are container users.
    pub group: String,
    /// podspawn.
    pub helper: PathBuf,
    /// Its configuration, where it is not in the usual place.
    pub config: Option<PathBuf>,
    /// How long the helper may take.
    pub timeout: Duration,
    /// The first argument that makes no sense.
    pub wrong: Option<String>,
}

impl Options {
    /// Reads `name=value` arguments. A wrong one is kept: it must not harm the
    /// logins of those whom the module does not concern.
    pub fn read<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut options = Self {
            group: "podspawn".into(),
            helper: "/usr/bin/podspawn".into(),
            config: None,
            timeout: TIMEOUT,
            wrong: None,
        };
        for argument in arguments {
            if options.take(argument).is_none() {
                options.wrong.get_or_insert_with(|| argument.to_owned());
            }
        }
        options
    }

    fn take(&mut self, argument: &str) -> Option<()> {
        let absolute = |value: &str| value.starts_with('/').then(|| PathBuf::from(value));
        let (name, value) = argument.split_once('=')?;
        match name {
            "group" if !value.is_empty() => self.group = value.into(),
            "helper" => self.helper = absolute(value)?,
            "config" => self.config = Some(absolute(value)?),
            "timeout" => {
                let seconds = value.parse().ok().filter(|s| (1..=86_400).contains(s))?;
                self.timeout = Duration::from_secs(seconds);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_has_a_default() {
        let options = Options::read([]);
        assert_eq!((options.group.as_str(), options.wrong), ("podspawn", None));
    }

    #[test]
    fn what_makes_no_sense_is_named_and_changes_nothing() {
        for wrong in [
            "groups=x",
            "group=",
            "helper=podspawn",
            "config=",
            "timeout=0",
            "timeout=-1",
            "timeout=1m",
            "debug",
            "",
        ] {
            let options = Options::read(["group=staff", wrong, "timeout=7"]);
            assert_eq!(options.wrong.as_deref(), Some(wrong));
            let expected = Options {
                wrong: options.wrong.clone(),
                group: "staff".into(),
                timeout: Duration::from_secs(7),
                ..Options::read([])
            };
            assert_eq!(options, expected);
        }
    }
}
