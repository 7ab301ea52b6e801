//! Patterns, for images without a shell: `*`, `?` and `[…]`, as sh expands them.

use rustix::fs::{Dir, FileType, Mode, OFlags};

use super::{join, kind, stat};

/// No more matches than this for one pattern, and no deeper.
const MAX_MATCHES: usize = 100_000;

/// The paths that `pattern` stands for, in order; `pattern` itself if there is such a
/// file, if it has nothing to expand, or if nothing matches.
pub fn expand(pattern: &[u8]) -> Vec<Vec<u8>> {
    let as_it_is = vec![pattern.to_vec()];
    if !is_pattern(pattern) || rustix::fs::lstat(pattern).is_ok() {
        return as_it_is;
    }
    let absolute = pattern.starts_with(b"/");
    let mut found = vec![if absolute { b"/".to_vec() } else { Vec::new() }];
    let mut components = pattern
        .split(|&b| b == b'/')
        .filter(|c| !c.is_empty())
        .peekable();
    while let Some(component) = components.next() {
        let last = components.peek().is_none();
        let mut next = Vec::new();
        for directory in &found {
            extend(&mut next, directory, component, last);
        }
        next.truncate(MAX_MATCHES);
        found = next;
    }
    if found.is_empty() { as_it_is } else { found }
}

/// Appends what in `directory` the component stands for.
fn extend(found: &mut Vec<Vec<u8>>, directory: &[u8], component: &[u8], last: bool) {
    let at = |name: &[u8]| {
        if directory.is_empty() {
            name.to_vec()
        } else {
            join(directory, name)
        }
    };
    let usable = |path: &[u8]| match last {
        true => rustix::fs::lstat(path).is_ok(),
        false => stat(path).is_ok_and(|stat| kind(&stat) == FileType::Directory),
    };
    if !is_pattern(component) {
        let path = at(component);
        if usable(&path) {
            found.push(path);
        }
        return;
    }
    let opened = if directory.is_empty() {
        b".".as_slice()
    } else {
        directory
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(mut entries) = rustix::fs::open(opened, flags, Mode::empty()).and_then(Dir::new) else {
        return;
    };
    let start = found.len();
    while let Some(Ok(entry)) = entries.read() {
        let name = entry.file_name().to_bytes();
        // A leading dot has to be named.
        let hidden = name.starts_with(b".") && !component.starts_with(b".");
        if !hidden && !matches!(name, b"." | b"..") && matches(component, name) {
            let path = at(name);
            if usable(&path) {
                found.push(path);
            }
        }
        if found.len() > MAX_MATCHES {
            break;
        }
    }
    found[start..].sort_unstable();
}

fn is_pattern(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| b"*?[".contains(b))
}

/// Whether all of `name` matches `pattern`. Takes at most the product of their lengths.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on if what follows the last star does not match here.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if let Some(len) = pattern.get(p..).and_then(|rest| one(rest, name[n])) {
            p += len;
            n += 1;
        } else if let Some((after_star, from)) = retry {
            p = after_star;
            n = from + 1;
            retry = Some((after_star, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// How much of `pattern` matches the one byte, if it does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [b'[', rest @ ..] => match class(rest, byte) {
            Some((matched, len)) => matched.then_some(1 + len),
            // Never closed: a bracket and no more.
            None => (byte == b'[').then_some(1),
        },
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Whether a class contains the byte, and how long it is; `None` if it has no end.
/// `class` begins after its bracket.
fn class(class: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(class.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut matched = false;
    loop {
        match *class.get(at..)? {
            // The first bracket after the opening one is a member.
            [b']', ..] if at > first => return Some((matched != negated, at + 1)),
            [low, b'-', high, ..] if high != b']' => {
                matched |= (low..=high).contains(&byte);
                at += 3;
            }
            [member, ..] => {
                matched |= member == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_sh() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abcbc"),
            ("*.t?t", "x.txt"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[^]]", "a"),
            ("[a-]", "-"),
            ("[", "["),
            ("[a", "[a"),
            ("\\*", "*"),
            ("a**b", "ab"),
        ] {
            assert!(
                matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        for (pattern, name) in [
            ("", "a"),
            ("?", ""),
            ("a*c", "abcb"),
            ("[a-c]x", "dx"),
            ("[!a-c]x", "bx"),
            ("[]", "]x"),
            ("\\*", "a"),
            ("*a", "ab"),
        ] {
            assert!(
                !matches(pattern.as_bytes(), name.as_bytes()),
                "{pattern} {name}"
            );
        }
        // Exponential in a naive matcher.
        assert!(!matches(&b"*a".repeat(60), &[b'a'; 59]));
    }

    #[test]
    fn expands_in_order_and_leaves_the_rest() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["b.txt", "a.txt", ".hidden.txt", "c.log", "we[i]rd"] {
            std::fs::write(dir.path().join(name), b"").expect("write");
        }
        std::fs::create_dir(dir.path().join("d1")).expect("mkdir");
        std::fs::write(dir.path().join("d1/x"), b"").expect("write");
        let base = dir.path().to_str().expect("plain");
        let at = |pattern: &str| -> Vec<String> {
            expand(format!("{base}/{pattern}").as_bytes())
                .iter()
                .map(|path| String::from_utf8_lossy(path)[base.len() + 1..].to_owned())
                .collect()
        };
        assert_eq!(at("*.txt"), ["a.txt", "b.txt"]);
        assert_eq!(at(".*.txt"), [".hidden.txt"]);
        assert_eq!(at("d?/*"), ["d1/x"]);
        assert_eq!(at("*/x"), ["d1/x"]);
        assert_eq!(at("we[i]rd"), ["we[i]rd"]);
        assert_eq!(at("none*"), ["none*"]);
        assert_eq!(at("plain"), ["plain"]);
        assert_eq!(at("[ab].txt"), ["a.txt", "b.txt"]);
    }
}
