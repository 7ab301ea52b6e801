//! Tar archives made to order, the impossible ones included.

/// An entry, complete with what a header says of it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub link: Vec<u8>,
    pub content: Vec<u8>,
    /// What the header says instead of the content's length.
    pub size: Option<u64>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Further pax records, as they are.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    pub gnu: bool,
}

/// When everything was made, unless a test says otherwise.
pub const THEN: i64 = 1_600_000_000;

impl Entry {
    pub fn new(kind: u8, path: impl AsRef<[u8]>) -> Entry {
        Entry {
            path: path.as_ref().to_vec(),
            kind,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: (THEN, 0),
            link: Vec::new(),
            content: Vec::new(),
            size: None,
            xattrs: Vec::new(),
            records: Vec::new(),
            gnu: false,
        }
    }

    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Entry {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn at(mut self, seconds: i64, nanoseconds: u32) -> Entry {
        self.mtime = (seconds, nanoseconds);
        self
    }

    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
        self.xattrs
            .push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub fn record(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
        self.records
            .push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Long names and links in GNU's own headers instead of pax records.
    pub fn gnu(mut self) -> Entry {
        self.gnu = true;
        self
    }

    pub fn sized(mut self, size: u64) -> Entry {
        self.size = Some(size);
        self
    }
}

pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Entry {
    let mut entry = Entry::new(b'0', path);
    entry.content = content.as_ref().to_vec();
    entry
}

pub fn dir(path: impl AsRef<[u8]>) -> Entry {
    Entry::new(b'5', path)
}

pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    let mut entry = Entry::new(b'2', path).mode(0o777);
    entry.link = target.as_ref().to_vec();
    entry
}

pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    let mut entry = Entry::new(b'1', path);
    entry.link = target.as_ref().to_vec();
    entry
}

/// An archive of these entries, with its end.
pub fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        entry.write(&mut bytes);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn octal(field: &mut [u8], value: u64) {
    let text = format!("{value:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(text.as_bytes());
}

fn fits(value: u64, digits: u32) -> bool {
    value < 8u64.pow(digits)
}

/// A header block with its checksum.
pub fn header(kind: u8, path: &[u8], link: &[u8], size: u64, gnu: bool) -> [u8; 512] {
    let mut block = [0; 512];
    let length = path.len().min(100);
    block[..length].copy_from_slice(&path[..length]);
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    if fits(size, 11) {
        octal(&mut block[124..136], size);
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    octal(&mut block[136..148], 0);
    block[156] = kind;
    let length = link.len().min(100);
    block[157..157 + length].copy_from_slice(&link[..length]);
    let magic = if gnu { b"ustar  \0" } else { b"ustar\x0000" };
    block[257..265].copy_from_slice(magic);
    checksum(&mut block);
    block
}

/// Computes the checksum again, after a change.
pub fn checksum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(text.as_bytes());
}

/// A pax record, whose length counts itself.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    let mut bytes = format!("{length} ").into_bytes();
    bytes.extend([key, b"=", value, b"\n"].concat());
    bytes
}

impl Entry {
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let mut records = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
        for (long, text, kind, key) in [
            (100, &self.path, b'L', &b"path"[..]),
            (100, &self.link, b'K', b"linkpath"),
        ] {
            if text.len() > long && self.gnu {
                bytes.extend(header(
                    kind,
                    b"././@LongLink",
                    b"",
                    text.len() as u64 + 1,
                    true,
                ));
                bytes.extend(text);
                bytes.push(0);
                pad(bytes);
            } else if text.len() > long {
                add(key, text);
            }
        }
        let (seconds, nanoseconds) = self.mtime;
        if nanoseconds != 0 || seconds < 0 || !fits(seconds as u64, 11) {
            // The fraction counts away from zero in the text, and forward in the value.
            let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
            let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
            let text = format!(
                "{sign}{}.{:09}",
                total / 1_000_000_000,
                total % 1_000_000_000
            );
            add(b"mtime", text.as_bytes());
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if !fits(id, 7) {
                add(key, id.to_string().as_bytes());
            }
        }
        for (name, value) in &self.xattrs {
            add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        for (key, value) in &self.records {
            add(key, value);
        }
        if !records.is_empty() {
            bytes.extend(header(
                b'x',
                b"PaxHeaders/x",
                b"",
                records.len() as u64,
                false,
            ));
            bytes.extend(records);
            pad(bytes);
        }
        let size = self.size.unwrap_or(self.content.len() as u64);
        let mut block = header(self.kind, &self.path, &self.link, size, self.gnu);
        octal(&mut block[100..108], self.mode.into());
        for (field, id) in [(108..116, self.uid), (116..124, self.gid)] {
            octal(&mut block[field], if fits(id, 7) { id } else { 0 });
        }
        let seconds = u64::try_from(seconds).ok().filter(|s| fits(*s, 11));
        octal(&mut block[136..148], seconds.unwrap_or(0));
        checksum(&mut block);
        bytes.extend(block);
        bytes.extend(&self.content);
        pad(bytes);
    }
}
