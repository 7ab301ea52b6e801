//! Bytes between X clients inside and sshd's port on this host's loopback.
//! Runs in the keeper of a display: one thread, one poll.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect,
    recv, send, shutdown, socket_with, sockopt::set_tcp_nodelay,
};

use crate::pod::Connection;

/// How many clients at once; X servers have 256 by default.
const CLIENTS: usize = 256;

/// How much is read at once, in bytes.
const CHUNK: usize = 16 << 10;

/// sshd's port.
#[derive(Debug)]
pub struct Target {
    port: u16,
    /// Who logged in on the host, and so whom sshd's port belongs to.
    login: u32,
    /// The sockets of the network namespace that it was opened in.
    sockets: File,
}

impl Target {
    /// Port `port` of the loopback that this process has now.
    ///
    /// # Errors
    ///
    /// When there is no `/proc`.
    pub fn new(port: u16, login: u32) -> io::Result<Self> {
        Ok(Self {
            port,
            login,
            sockets: File::open("/proc/self/net/tcp")?,
        })
    }

    /// What must stay open.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        // After sshd has gone, somebody else may take its port before this process
        // hears of it.
        if !is_listening(&self.table()?, self.port, self.login) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(e.into()),
        }
        set_tcp_nodelay(&socket, true)?;
        Ok(socket)
    }

    fn table(&self) -> io::Result<String> {
        let (mut table, mut chunk) = (Vec::new(), [0; CHUNK]);
        loop {
            match self.sockets.read_at(&mut chunk, table.len() as u64)? {
                0 => return Ok(String::from_utf8_lossy(&table).into_owned()),
                n => table.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

/// Whether the table (`/proc/net/tcp`, `proc(5)`) has a listener of `uid` on
/// 127.0.0.1 or on every address. Pure.
fn is_listening(table: &str, port: u16, uid: u32) -> bool {
    const LISTEN: &str = "0A";
    let loopback = format!("{:08X}:{port:04X}", u32::from(Ipv4Addr::LOCALHOST).to_be());
    let everywhere = format!("00000000:{port:04X}");
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, state, _, _, _, owner, ..] = fields[..] else {
            return false;
        };
        (local == loopback || local == everywhere) && state == LISTEN && owner.parse() == Ok(uid)
    })
}

/// Serves clients until the session is over and the last of them has gone.
/// `over` is called once, when the session ends: the kernel closes `line`.
pub fn serve(line: &Connection, way: Option<(Target, OwnedFd)>, over: impl FnOnce()) {
    let mut over = Some(over);
    let mut way = way;
    let mut clients: Vec<Client> = Vec::new();
    while over.is_some() || !clients.is_empty() {
        let mut fds = Vec::new();
        if over.is_some() {
            fds.push(PollFd::new(line, PollFlags::IN));
            if let Some((_, listener)) = &way
                && clients.len() < CLIENTS
            {
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
        }
        let at = fds.len();
        for client in &clients {
            fds.extend(client.interest());
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut pairs = ready[at..].chunks_exact(2);
        clients.retain_mut(|client| match pairs.next() {
            Some([false, false]) | None => true,
            Some(_) => client.pump(),
        });
        if over.is_some() && ready[0] {
            // No new clients; nothing is ever said on the line.
            way = None;
            if let Some(over) = over.take() {
                over();
            }
        } else if at > 1
            && ready[1]
            && let Some((target, listener)) = &way
        {
            while clients.len() < CLIENTS
                && let Ok(inner) =
                    accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            {
                // A client that cannot be helped sees its connection close.
                if let Ok(outer) = target.connect() {
                    clients.push(Client::new(inner, outer));
                }
            }
        }
    }
}

/// One client's two connections.
#[derive(Debug)]
struct Client {
    inner: OwnedFd,
    outer: OwnedFd,
    up: Way,
    down: Way,
}

impl Client {
    fn new(inner: OwnedFd, outer: OwnedFd) -> Self {
        Self {
            inner,
            outer,
            up: Way::default(),
            down: Way::default(),
        }
    }

    fn interest(&self) -> [PollFd<'_>; 2] {
        let ask = |reads: &Way, writes: &Way| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads.wants_more());
            flags.set(PollFlags::OUT, writes.has_some());
            flags
        };
        // A client that has left would be told of for ever.
        let inner = match self.up.ended && !self.down.has_some() {
            true => PollFd::new(&self.outer, PollFlags::empty()),
            false => PollFd::new(&self.inner, ask(&self.up, &self.down)),
        };
        [inner, PollFd::new(&self.outer, ask(&self.down, &self.up))]
    }

    /// Moves what can be moved; false when both ways are done or one has failed.
    fn pump(&mut self) -> bool {
        let moved = self
            .up
            .pump(&self.inner, &self.outer)
            .and_then(|()| self.down.pump(&self.outer, &self.inner));
        // sshd's end is gone: the client hears of it.
        moved.is_ok() && !self.up.deaf && !(self.up.is_done() && self.down.is_done())
    }
}

/// Bytes in one direction.
#[derive(Debug, Default)]
struct Way {
    bytes: Vec<u8>,
    /// What of them is sent.
    start: usize,
    ended: bool,
    passed_end_on: bool,
    /// Nobody takes it any more: it is read and forgotten, so that the other end
    /// can finish what it is saying.
    deaf: bool,
}

impl Way {
    fn has_some(&self) -> bool {
        self.start < self.bytes.len()
    }

    fn wants_more(&self) -> bool {
        !self.ended && !self.has_some()
    }

    fn is_done(&self) -> bool {
        self.passed_end_on
    }

    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
        if self.wants_more() {
            self.bytes.resize(CHUNK, 0);
            self.start = 0;
            let got = recv(from, &mut self.bytes[..], RecvFlags::DONTWAIT);
            self.bytes.truncate(got.as_ref().map_or(0, |(n, _)| *n));
            match got {
                Ok((0, _)) => self.ended = true,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        if self.deaf {
            self.bytes.clear();
        }
        while self.has_some() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(to, &self.bytes[self.start..], flags) {
                Ok(n) => self.start += n,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.deaf = true;
                    self.bytes.clear();
                }
                Err(e) => return Err(e),
            }
        }
        if self.ended && !self.passed_end_on {
            self.passed_end_on = true;
            // A peer that is gone already needs no telling.
            let _ = shutdown(to, Shutdown::Write);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_port_must_be_the_users() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:177A 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5 1 x\n   1: 0100007F:177B 0100007F:0016 01 00000000:00000000 00:00000000 00000000  1000        0 6 1 x\n";
        assert!(is_listening(table, 6010, 1000));
        assert!(!is_listening(table, 6010, 1001));
        assert!(!is_listening(table, 6011, 1000));
        assert!(!is_listening("", 6010, 1000));
    }

    /// A megabyte each way, more than any buffer holds, and both half-closes.
    #[test]
    fn bytes_pass_both_ways_and_the_end_does_too() {
        let dir = tempfile::tempdir().unwrap();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let uid = rustix::process::getuid().as_raw();
        let target = Target::new(port, uid).unwrap();
        let inside = UnixListener::bind(dir.path().join("X")).unwrap();
        inside.set_nonblocking(true).unwrap();
        let (session, keeper) = Connection::pair().unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        let serving = std::thread::spawn(move || {
            let over = move || said.send(()).unwrap();
            serve(&keeper, Some((target, inside.into())), over);
        });
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let mut client = UnixStream::connect(dir.path().join("X")).unwrap();
        let sent: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        client.write_all(&sent).unwrap();
        // The session ends; the client stays.
        drop(session);
        heard.recv().unwrap();
        assert!(!serving.is_finished());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == sent);
        echo.join().unwrap();
        drop(client);
        serving.join().unwrap();
    }
}
