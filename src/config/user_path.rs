//! `storage.root`, `log.file`: paths that may differ from user to user. Pure.

use std::path::PathBuf;

use crate::account::Account;

/// An absolute path in which `{user}` and `{uid}` stand for the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPath(String);

impl UserPath {
    /// Checks the braces of a path that is absolute.
    ///
    /// # Errors
    ///
    /// One line about the text, which it quotes.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text
            .replace("{user}", "")
            .replace("{uid}", "")
            .contains(['{', '}'])
        {
            let quoted = super::quote(text);
            return Err(format!(
                "{quoted} has unknown braces; {{user}} and {{uid}} are known"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The path for this user.
    #[must_use]
    pub fn of(&self, account: &Account) -> PathBuf {
        let path = self.0.replace("{uid}", &account.uid.to_string());
        path.replace("{user}", &account.name).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<PathBuf, String> {
        let account = Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/alice".into(),
        };
        UserPath::parse(text).map(|root| root.of(&account))
    }

    #[test]
    fn braces_stand_for_the_user() {
        for (text, path) in [
            ("/srv/pods", "/srv/pods"),
            ("/srv/{user}/pods", "/srv/alice/pods"),
            ("/srv/u{uid}-{user}", "/srv/u1000-alice"),
        ] {
            assert_eq!(of(text), Ok(PathBuf::from(path)), "{text}");
        }
    }

    #[test]
    fn other_braces_are_refused() {
        for text in [
            "/srv/{name}",
            "/srv/{",
            "/srv/}x",
            "/srv/{user }",
            "/srv/{{user}}",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
