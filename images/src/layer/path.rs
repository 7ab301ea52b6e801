//! Names in a layer: cleaning them, and telling whiteouts from files. Pure.
//!
//! A leading slash and components that are empty or `.` mean nothing, as for every other consumer of
//! images (common builders write absolute names). A `..` is refused wherever it leads: no builder
//! writes it.

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It has a `..` component.
    #[error("a name must not contain \"..\"")]
    Parent,
    /// It contains a NUL.
    #[error("a name must not contain NUL")]
    Nul,
    /// A component over 255 bytes, or over 4095 in all.
    #[error("the name is too long for a file")]
    Long,
    /// More components than the limit.
    #[error("the name has more components than are allowed")]
    Deep,
    /// `.wh.` followed by what is not the name of a file.
    #[error("it is not the whiteout of any file")]
    Whiteout,
}

/// What the last component of an entry's name makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    /// Something to create.
    Object,
    /// `.wh.NAME`: NAME is gone.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: the directory shows nothing of the layers below.
    Opaque,
    /// What the aufs storage driver of old left in its layers.
    Aufs,
}

const PREFIX: &[u8] = b".wh.";
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// `name` without what means nothing; `""` is the root of the layer.
pub(crate) fn clean(name: &[u8], depth: usize) -> Result<Vec<u8>, PathFault> {
    if name.contains(&0) {
        return Err(PathFault::Nul);
    }
    let mut clean = Vec::with_capacity(name.len().min(PATH_MAX + 1));
    let mut components = 0;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(PathFault::Parent),
            _ => {}
        }
        components += 1;
        if components > depth {
            return Err(PathFault::Deep);
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
        if component.len() > NAME_MAX || clean.len() > PATH_MAX {
            return Err(PathFault::Long);
        }
    }
    Ok(clean)
}

/// The parent, `""` for the root, and the last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The role of an entry with the clean name `path`.
pub(crate) fn role(path: &[u8]) -> Result<Role<'_>, PathFault> {
    // Most names have none, and this is asked for every entry.
    if !path.windows(PREFIX.len()).any(|window| window == PREFIX) {
        return Ok(Role::Object);
    }
    let first = path.split(|byte| *byte == b'/').next();
    if matches!(
        first,
        Some(b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")
    ) {
        return Ok(Role::Aufs);
    }
    let (parent, base) = split(path);
    if parent
        .split(|byte| *byte == b'/')
        .any(|component| component.starts_with(PREFIX))
    {
        return Err(PathFault::Whiteout);
    }
    match base.strip_prefix(PREFIX) {
        None => Ok(Role::Object),
        Some(b".wh..opq") => Ok(Role::Opaque),
        Some(b"" | b"." | b"..") => Err(PathFault::Whiteout),
        Some(name) if name.starts_with(PREFIX) => Err(PathFault::Whiteout),
        Some(name) => Ok(Role::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned() {
        let ok = |name: &str| String::from_utf8(clean(name.as_bytes(), 9).unwrap()).unwrap();
        assert_eq!(ok(""), "");
        assert_eq!(ok("./"), "");
        assert_eq!(ok("/"), "");
        assert_eq!(ok("./a//b/./c/"), "a/b/c");
        assert_eq!(ok("/etc/passwd"), "etc/passwd");
        assert_eq!(ok("..."), "...");
        let fault = |name: &[u8]| clean(name, 9).unwrap_err();
        for name in ["..", "../a", "a/..", "a/../b", "/..", "./../x"] {
            assert_eq!(fault(name.as_bytes()), PathFault::Parent, "{name}");
        }
        assert_eq!(fault(b"a\0b"), PathFault::Nul);
        assert_eq!(fault(b"1/2/3/4/5/6/7/8/9/10"), PathFault::Deep);
        assert_eq!(fault(&[b'a'; 256]), PathFault::Long);
        let long = [&[b'a'; 255][..]; 17].join(&b'/');
        assert_eq!(clean(&long, 99), Err(PathFault::Long));
        assert!(clean(&long[..4095], 99).is_ok());
    }

    #[test]
    fn roles() {
        assert_eq!(role(b"a/b"), Ok(Role::Object));
        assert_eq!(role(b"a/.wh"), Ok(Role::Object));
        assert_eq!(role(b"a/x.wh.y"), Ok(Role::Object));
        assert_eq!(role(b"a/.wh.b"), Ok(Role::Whiteout(b"b")));
        assert_eq!(role(b".wh...."), Ok(Role::Whiteout(b"...")));
        assert_eq!(role(b".wh..wh..opq"), Ok(Role::Opaque));
        assert_eq!(role(b"a/.wh..wh..opq"), Ok(Role::Opaque));
        assert_eq!(role(b".wh..wh.plnk/12.34"), Ok(Role::Aufs));
        for bad in [
            ".wh.",
            ".wh..",
            ".wh...",
            ".wh..wh.",
            ".wh..wh..",
            ".wh..wh...",
            ".wh..wh.x",
            ".wh.a/b",
            "a/.wh..wh..opq/b",
            "a/.wh..wh.plnk",
        ] {
            assert_eq!(role(bad.as_bytes()), Err(PathFault::Whiteout), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_name_is_clean(name in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), Just(b'w'), any::<u8>()], 0..60))
        {
            if let Ok(path) = clean(&name, 20) {
                prop_assert!(!path.starts_with(b"/") && !path.ends_with(b"/"));
                prop_assert!(!path.contains(&0));
                for component in path.split(|b| *b == b'/') {
                    prop_assert!(!matches!(component, b"." | b".."));
                    prop_assert!(!component.is_empty() || path.is_empty());
                }
                prop_assert_eq!(clean(&path, 20), Ok(path.clone()));
            }
        }
    }
}
