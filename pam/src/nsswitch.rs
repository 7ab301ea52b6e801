//! The host's `nsswitch.conf(5)` with another line for hosts. Pure.

#![forbid(unsafe_code)]

/// `original` with host names from the pod's files and name server alone. The
/// other databases stay: the user may be known to a directory service only.
#[must_use]
pub fn for_pod(original: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(original.len() + 32);
    for line in original.split_inclusive(|b| *b == b'\n') {
        if !is_hosts(line) {
            text.extend_from_slice(line);
        }
    }
    if text.last().is_some_and(|b| *b != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(b"hosts: files dns\n");
    text
}

fn is_hosts(line: &[u8]) -> bool {
    line.trim_ascii_start()
        .strip_prefix(b"hosts")
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_for_hosts_changes() {
        let host = b"passwd: files sss\nhosts: files mdns4_minimal [NOTFOUND=return] resolve\n hosts : dns\n#hosts: x\nnetworks: files";
        assert_eq!(
            String::from_utf8(for_pod(host)).unwrap(),
            "passwd: files sss\n#hosts: x\nnetworks: files\nhosts: files dns\n"
        );
        assert_eq!(for_pod(b""), b"hosts: files dns\n");
    }
}
