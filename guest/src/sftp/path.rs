//! Paths made absolute: REALPATH, `expand-path` and `home-directory`. Runs in
//! `sftp-server`.

use rustix::fs::CWD;
use rustix::io::Errno;

use super::names::Names;

/// As in the kernel.
const MAX_LINKS: u32 = 40;
/// PATH_MAX, with room for the final zero.
const MAX_PATH: usize = 4095;

/// The directory that relative paths begin at.
pub fn working_directory() -> Result<Vec<u8>, Errno> {
    Ok(rustix::process::getcwd(Vec::new())?.into_bytes())
}

/// The absolute path of `path`, without symbolic links, `.` and `..`. The last
/// component need not exist: clients ask so where to create something. An empty
/// path is the working directory.
///
/// # Errors
/// What the file system says; `LOOP` after 40 links, `NAMETOOLONG`.
pub fn real(path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut resolved = match path {
        [b'/', ..] => Vec::new(),
        _ => working_directory()?,
    };
    if resolved == b"/" {
        resolved.clear();
    }
    let mut left = path.to_vec();
    let mut links = 0;
    loop {
        let start = left.iter().position(|&b| b != b'/').unwrap_or(left.len());
        let end = left[start..]
            .iter()
            .position(|&b| b == b'/')
            .map_or(left.len(), |n| start + n);
        let rest = left.split_off(end);
        let component = &left[start..];
        match component {
            b"" => break,
            b"." => {}
            b".." => pop(&mut resolved),
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(component);
                if resolved.len() > MAX_PATH {
                    return Err(Errno::NAMETOOLONG);
                }
                match rustix::fs::readlinkat(CWD, resolved.as_slice(), Vec::new()) {
                    Ok(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        let mut target = target.into_bytes();
                        if target.starts_with(b"/") {
                            resolved.clear();
                        } else {
                            pop(&mut resolved);
                        }
                        if target.len() + rest.len() > MAX_PATH {
                            return Err(Errno::NAMETOOLONG);
                        }
                        target.extend_from_slice(&rest);
                        left = target;
                        continue;
                    }
                    // It is there, and no link.
                    Err(Errno::INVAL) => {}
                    Err(Errno::NOENT) if rest.iter().all(|&b| b == b'/') => break,
                    Err(errno) => return Err(errno),
                }
            }
        }
        left = rest;
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    Ok(resolved)
}

fn pop(path: &mut Vec<u8>) {
    let parent = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    path.truncate(parent);
}

/// As [`real`], after `~` was replaced by the working directory, where a session
/// begins, and `~user` by that user's home.
///
/// # Errors
/// As [`real`]; `NOENT` if there is no such user.
pub fn expand(path: &[u8], names: &Names) -> Result<Vec<u8>, Errno> {
    let Some(after) = path.strip_prefix(b"~") else {
        return real(path);
    };
    let end = after.iter().position(|&b| b == b'/').unwrap_or(after.len());
    let (user, rest) = after.split_at(end);
    let mut full = match user {
        b"" => working_directory()?,
        user => names.home(user).ok_or(Errno::NOENT)?.to_vec(),
    };
    full.extend_from_slice(rest);
    real(&full)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn resolves_as_the_kernel_does() {
        let dir = tempfile::tempdir().expect("tempdir");
        let base = real(dir.path().as_os_str().as_bytes()).expect("it exists");
        std::fs::create_dir(dir.path().join("d")).expect("mkdir");
        std::fs::write(dir.path().join("d/f"), b"").expect("write");
        symlink("d", dir.path().join("rel")).expect("symlink");
        symlink(dir.path().join("d"), dir.path().join("abs")).expect("symlink");
        symlink("nowhere", dir.path().join("dangling")).expect("symlink");
        symlink("loop", dir.path().join("loop")).expect("symlink");
        let at = |tail: &str| real(&[&base, tail.as_bytes()].concat());
        let is = |tail: &str| Ok([&base, tail.as_bytes()].concat());
        assert_eq!(at("/d/../d/./f"), is("/d/f"));
        assert_eq!(at("//rel///f"), is("/d/f"));
        assert_eq!(at("/abs/f/"), is("/d/f"));
        assert_eq!(at("/new"), is("/new"));
        assert_eq!(at("/new/"), is("/new"));
        assert_eq!(at("/dangling"), is("/nowhere"));
        assert_eq!(at("/new/more"), Err(Errno::NOENT));
        assert_eq!(at("/d/f/more"), Err(Errno::NOTDIR));
        assert_eq!(at("/loop"), Err(Errno::LOOP));
        assert_eq!(real(b"/"), Ok(b"/".to_vec()));
        assert_eq!(real(b"/.."), Ok(b"/".to_vec()));
        assert_eq!(real(b"//proc/../"), Ok(b"/".to_vec()));
        assert_eq!(real(b""), working_directory());
        assert_eq!(real(&[b'/'; 5000]), Ok(b"/".to_vec()));
        assert!(real(&[b'a'; 5000]).is_err());
    }

    #[test]
    fn expands_tildes() {
        let names = Names::parse(b"u:x:5:5::/proc:/bin/sh", b"");
        assert_eq!(expand(b"~u/sys", &names), Ok(b"/proc/sys".to_vec()));
        assert_eq!(expand(b"~", &names), working_directory());
        assert_eq!(expand(b"~nobody-of-that-name", &names), Err(Errno::NOENT));
        assert_eq!(expand(b"/proc/~", &names), Ok(b"/proc/~".to_vec()));
    }
}
