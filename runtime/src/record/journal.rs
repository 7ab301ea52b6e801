//! Messages to the journal, in its native protocol (systemd's
//! `JOURNAL_NATIVE_PROTOCOL`). Pure.

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// `PRIORITY` of what is worth noting and no error (`syslog(3)`).
const INFO: &str = "6";

/// One datagram. The names of fields are ours: `A-Z`, `0-9` and `_`.
#[must_use]
pub fn message(line: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        ("MESSAGE", line),
        ("PRIORITY", INFO),
        ("SYSLOG_IDENTIFIER", "podspawn"),
    ];
    let mut bytes = Vec::with_capacity(line.len() + 256);
    for (name, value) in usual.iter().chain(fields) {
        field(&mut bytes, name, value);
    }
    bytes
}

/// A value with a line break in it is sent by its length.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_a_field() {
        let message = message("up", &[("PODSPAWN_POD", "a\nPRIORITY=0")]);
        let expected = [
            &b"MESSAGE=up\nPRIORITY=6\nSYSLOG_IDENTIFIER=podspawn\nPODSPAWN_POD\n"[..],
            &[12, 0, 0, 0, 0, 0, 0, 0],
            b"a\nPRIORITY=0\n",
        ]
        .concat();
        assert_eq!(message, expected);
    }
}
