//! The user database of an image: `passwd(5)` and `group(5)` as bytes.
//!
//! Pure. The files come from an image, so lines that make no sense are skipped
//! and kept as they are.

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell; empty when the line has none.
    pub shell: String,
}

/// All accounts of a passwd file that can be read.
pub fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account> + '_ {
    passwd.split(|b| *b == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else {
            return None;
        };
        if name.is_empty() {
            return None;
        }
        Some(Account {
            name: name.into(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: home.into(),
            shell: shell.into(),
        })
    })
}

/// The groups, by id, that list `user` as a member.
#[must_use]
pub fn groups_of(group: &[u8], user: &str) -> Vec<u32> {
    let lines = group.split(|b| *b == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        if !members.split(',').any(|m| m == user) {
            return None;
        }
        gid.parse().ok()
    });
    lines.take(64).collect()
}

/// The id of the group `name`, which may be a number.
#[must_use]
pub fn group_id(group: &[u8], name: &str) -> Option<u32> {
    let by_name = group.split(|b| *b == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    });
    by_name.or_else(|| name.parse().ok())
}

/// `passwd` with a line for `account`, or `None` when it says the same already.
///
/// The line is put before the first that has the same name or id: look-ups take
/// the first match, and what the image says of others stays.
#[must_use]
pub fn with_account(passwd: &[u8], account: &Account) -> Option<Vec<u8>> {
    let first = accounts(passwd).find(|a| a.name == account.name || a.uid == account.uid);
    if first.as_ref() == Some(account) {
        return None;
    }
    let Account {
        name,
        uid,
        gid,
        home,
        shell,
    } = account;
    // "x" would send PAM to the shadow file, where there is nobody of this name.
    let line = format!("{name}:*:{uid}:{gid}:{name}:{home}:{shell}\n");
    Some(insert(passwd, line.as_bytes(), |fields| {
        fields.first().is_some_and(|n| *n == name.as_bytes()) || is(fields.get(2), *uid)
    }))
}

/// `group` with a line for the group `name` with id `gid`, or `None` when the
/// id has a name already.
#[must_use]
pub fn with_group(group: &[u8], name: &str, gid: u32) -> Option<Vec<u8>> {
    let named = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        is(fields.get(2), gid)
    };
    if group.split(|b| *b == b'\n').any(named) {
        return None;
    }
    let line = format!("{name}:x:{gid}:\n");
    Some(insert(group, line.as_bytes(), |fields| {
        fields.first().is_some_and(|n| *n == name.as_bytes())
    }))
}

fn is(field: Option<&&[u8]>, id: u32) -> bool {
    field
        .and_then(|f| std::str::from_utf8(f).ok())
        .and_then(|f| f.parse::<u32>().ok())
        == Some(id)
}

/// Inserts `new` before the first line that `conflicts`, or at the end.
fn insert(text: &[u8], new: &[u8], conflicts: impl Fn(&[&[u8]]) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + new.len() + 1);
    let mut inserted = false;
    for line in text.split_inclusive(|b| *b == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let fields: Vec<&[u8]> = bare.split(|b| *b == b':').collect();
        if !inserted && conflicts(&fields) {
            out.extend_from_slice(new);
            inserted = true;
        }
        out.extend_from_slice(line);
    }
    if !inserted {
        if out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        out.extend_from_slice(new);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n";

    fn alice() -> Account {
        Account {
            name: "alice".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/alice".into(),
            shell: "/bin/sh".into(),
        }
    }

    #[test]
    fn the_users_name_comes_before_another_with_the_same_id() {
        let new = with_account(PASSWD, &alice()).unwrap();
        let text = String::from_utf8(new.clone()).unwrap();
        assert_eq!(
            text.lines()
                .map(|l| l.split(':').next().unwrap())
                .collect::<Vec<_>>(),
            ["root", "alice", "ubuntu"]
        );
        assert_eq!(with_account(&new, &alice()), None);
    }

    #[test]
    fn a_file_without_a_last_newline_stays_whole() {
        let new = with_account(b"root:x:0:0:root:/root:/bin/sh", &alice()).unwrap();
        assert_eq!(accounts(&new).count(), 2);
        assert_eq!(
            accounts(&with_account(b"", &alice()).unwrap()).next(),
            Some(alice())
        );
    }

    #[test]
    fn groups_are_found_by_member_and_by_name() {
        let group = b"root:x:0:\nsudo:x:27:bob,alice\nalice2:x:28:alicex\n\xff\xfe:x:1:alice\nbad:x:zz:alice\n";
        assert_eq!(groups_of(group, "alice"), [27]);
        assert_eq!(group_id(group, "sudo"), Some(27));
        assert_eq!(group_id(group, "99"), Some(99));
        assert_eq!(group_id(group, "nobody"), None);
        assert_eq!(with_group(group, "x", 27), None);
        assert!(
            with_group(group, "x", 1234)
                .unwrap()
                .ends_with(b"x:x:1234:\n")
        );
    }

    proptest! {
        #[test]
        fn whatever_the_image_has_the_user_is_found_first(text in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(new) = with_account(&text, &alice()) {
                prop_assert_eq!(accounts(&new).find(|a| a.name == "alice"), Some(alice()));
                prop_assert_eq!(accounts(&new).find(|a| a.uid == 1000), Some(alice()));
            }
        }
    }
}
