//! Pod names: safe as a file name, a host name and a container id.

use std::fmt;
use std::str::FromStr;

/// The name of a pod: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName(String);

impl PodName {
    /// The pod of a user who asked for none in particular.
    #[must_use]
    pub fn default_pod() -> Self {
        Self("default".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a host name, which has no `_` (RFC 1123).
    #[must_use]
    pub fn host_name(&self) -> String {
        self.0
            .replace('_', "-")
            .trim_end_matches(['-', '.'])
            .to_owned()
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no pod name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pod name; use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
)]
pub struct InvalidPodName(String);

impl FromStr for PodName {
    type Err = InvalidPodName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPodName(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            ".x",
            "A",
            "a b",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<PodName>().is_err(), "{bad:?}");
        }
        for good in ["default", "0", "web.api_2-x", &"x".repeat(63)] {
            assert_eq!(good.parse::<PodName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn host_names_have_no_underscore_and_no_trailing_mark() {
        assert_eq!("my_app.".parse::<PodName>().unwrap().host_name(), "my-app");
    }
}
