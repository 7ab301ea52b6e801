//! Listeners and questions over TCP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A listener on loopback that answers every connection with one word over HTTP, and counts.
pub struct Answerer {
    pub port: u16,
    asked: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Answerer {
    /// On any free port.
    pub fn new(word: &'static str) -> Self {
        Self::on(0, word)
    }

    /// On this port.
    pub fn on(port: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
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
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return String::new();
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let mut answer = Vec::new();
    let _ = stream.write_all(QUESTION.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    body(&answer)
}

/// The body of an answer over HTTP.
pub fn body(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    body.trim().to_owned()
}
