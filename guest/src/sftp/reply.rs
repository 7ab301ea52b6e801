//! Replies encoded, into a buffer that is reused. Pure. Runs in `sftp-server`.

use super::wire::{Code, kind};

/// Something that the fields of a reply are appended to.
pub trait Put {
    /// The bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    /// A big-endian 32-bit number.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A big-endian 64-bit number.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// A length and the bytes.
    fn put_string(&mut self, value: &[u8]) {
        // Names come from the kernel and from packets: both far below 4 GiB.
        self.put_u32(value.len() as u32);
        self.put(value);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Replies that wait to be sent, in one buffer that is never given back: file data
/// is read straight to where it is sent from.
pub struct Out {
    buffer: Vec<u8>,
    end: usize,
}

impl Out {
    /// An empty buffer with room for `capacity` bytes, and for more when needed.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity],
            end: 0,
        }
    }

    /// The replies so far.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.end]
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Forgets all replies: they are sent.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    /// Takes back what was appended after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(len);
    }

    /// The next `len` bytes, whatever is in them.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.end + len;
        if end > self.buffer.len() {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.end..end]
    }

    /// Appends one whole packet, its length and type before what `body` puts.
    pub fn packet(&mut self, kind: u8, body: impl FnOnce(&mut Self)) {
        let start = self.end;
        self.put_u32(0);
        self.put(&[kind]);
        body(self);
        let len = (self.end - start - 4) as u32;
        self.buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// Writes over four bytes that were put before.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.buffer[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Appends a DATA packet whose data, at most `max` bytes, `fill` writes in place;
    /// it says how many it wrote.
    ///
    /// # Errors
    /// Those of `fill`; nothing is appended then.
    pub fn data<E>(
        &mut self,
        id: u32,
        max: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        const HEADER: usize = 4 + 1 + 4 + 4;
        let room = self.room(HEADER + max);
        let filled = fill(&mut room[HEADER..])?.min(max);
        room[..4].copy_from_slice(&((HEADER - 4 + filled) as u32).to_be_bytes());
        room[4] = kind::DATA;
        room[5..9].copy_from_slice(&id.to_be_bytes());
        room[9..HEADER].copy_from_slice(&(filled as u32).to_be_bytes());
        self.end += HEADER + filled;
        Ok(())
    }

    /// Appends a STATUS packet.
    pub fn status(&mut self, id: u32, code: Code, text: &str) {
        self.packet(kind::STATUS, |out| {
            out.put_u32(id);
            out.put_u32(code as u32);
            out.put_string(text.as_bytes());
            out.put_string(b"");
        });
    }
}

impl Put for Out {
    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }
}
