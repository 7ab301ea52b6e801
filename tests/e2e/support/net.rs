//! Listeners and questions over TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::client::{Output, clean, run};

/// A listener that answers every connection with one word over HTTP, and counts.
pub struct Answerer {
    pub port: u16,
    asked: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Answerer {
    /// On any free port of loopback.
    pub fn new(word: &'static str) -> Self {
        Self::on(0, word)
    }

    /// On this port of loopback.
    pub fn on(port: u16, word: &'static str) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), port, word)
    }

    /// On this port of every address, of IPv4 and IPv6.
    pub fn everywhere(port: u16, word: &'static str) -> Self {
        Self::at(Ipv6Addr::UNSPECIFIED.into(), port, word)
    }

    fn at(address: IpAddr, port: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicBool::new(false));
        let (count, end) = (asked.clone(), closed.clone());
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{word}\n");
                });
            }
        });
        Self {
            port,
            asked,
            closed,
        }
    }

    /// How many connections there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// The question that an [`Answerer`] and a web server understand.
pub const QUESTION: &str = "GET / HTTP/1.0\r\n\r\n";

/// What answers on this port of loopback: the body, or nothing.
pub fn ask(port: u16) -> String {
    body(&say(IpAddr::V4(Ipv4Addr::LOCALHOST), port, QUESTION))
}

/// Everything that is answered, there, to one line; nothing if nobody is there.
pub fn say(address: IpAddr, port: u16, line: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut stream) = TcpStream::connect((address, port)) else {
        return answer;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let _ = stream.write_all(line.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// What curl gets through a SOCKS proxy at this port of loopback, which resolves names.
pub fn by_socks(port: u16, url: &str) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--noproxy", ""])
        .args(["--socks5-hostname", &format!("127.0.0.1:{port}"), url]);
    clean(&mut curl);
    run(curl, Vec::new(), Duration::from_secs(60))
}

/// Asks a PostgreSQL server at this port of loopback.
pub fn psql(port: u16, query: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["-qtAX", "-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-U", "postgres", "-c", query]);
    clean(&mut psql);
    psql.env("PGCONNECT_TIMEOUT", "20");
    run(psql, Vec::new(), Duration::from_secs(60))
}

/// What a Redis server answers to [`PING`].
pub const PONG: &str = "+PONG\r\n+OK\r\n";
/// Two lines after which a Redis server ends the connection.
pub const PING: &str = "PING\r\nQUIT\r\n";

/// A URL by which curl says [`PING`].
pub fn ping_url(host: &str, port: u16) -> String {
    format!("gopher://{host}:{port}/_PING%0D%0AQUIT")
}

/// The body of an answer over HTTP.
pub fn body(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.trim().to_owned()
}
