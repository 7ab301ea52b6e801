//! Just enough HTTP/1.1 to fill a registry, and to be a bad one.

use std::collections::HashMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podspawn_images::digest::Digest;

use crate::content::{Image, OCI_MANIFEST};

/// A request's answer.
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
}

/// Sends one request and waits for all of the answer.
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut reader = BufReader::new(stream);
    let (first, headers) = head(&mut reader).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    Answer {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers,
    }
}

fn head(reader: &mut impl std::io::BufRead) -> Option<(String, HashMap<String, String>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let first = line.trim_end().to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 || line.trim_end().is_empty() {
            return Some((first, headers));
        }
        if let Some((name, value)) = line.trim_end().split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

/// What a client asked a [`Site`] for.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// How many requests for this very path there were before.
    pub earlier: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of a range request.
    pub fn range(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// A server on loopback. Every connection has a thread and carries one request.
pub struct Site {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Site {
    /// Answers with whatever `handler` writes.
    pub fn start(
        handler: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::<Request>::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::new(handler);
        let (seen, stopping) = (requests.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), handler, seen) = (stream, handler.clone(), seen.clone()) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let _ = serve(stream, &*handler, &seen);
                });
            }
        });
        Site {
            address,
            requests,
            stop,
        }
    }

    /// Requests whose path contains `part`.
    pub fn seen(&self, part: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        let matching = requests.iter().filter(|r| r.path.contains(part));
        matching.cloned().collect()
    }

    /// `127.0.0.1:port/name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    handler: &dyn Fn(&Request, &mut TcpStream) -> std::io::Result<()>,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    // A hostile answer may never end; the test does.
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some((first, headers)) = head(&mut reader) else {
        return Ok(());
    };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let length = headers.get("content-length").and_then(|l| l.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let request = {
        let mut seen = seen.lock().unwrap();
        let request = Request {
            earlier: seen.iter().filter(|r| r.path == path).count(),
            method,
            path,
            headers,
            body,
        };
        seen.push(request.clone());
        request
    };
    handler(&request, &mut stream)
}

/// Writes a whole answer.
pub fn answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    )?;
    stream.write_all(body)
}

/// Answers honestly for `images` as the tags `0`, `1`, …; ranges included.
pub fn honest(images: &[Image], request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
    let last = request.path.rsplit('/').next().unwrap_or_default();
    for (tag, image) in images.iter().enumerate() {
        let manifest = &image.manifest;
        if request.path.contains("/manifests/")
            && (last == tag.to_string() || last == image.digest().to_string())
        {
            let headers = format!(
                "Content-Type: {OCI_MANIFEST}\r\nDocker-Content-Digest: {}\r\n",
                image.digest()
            );
            return answer(stream, "200 OK", &headers, manifest);
        }
        let mut blobs = image.layers.iter().map(|l| &l.blob).chain([&image.config]);
        if let Some(blob) = blobs.find(|b| Digest::of(b).to_string() == last) {
            return match request.range() {
                Some(first) if first < blob.len() => {
                    let (end, size) = (blob.len() - 1, blob.len());
                    let headers = format!("Content-Range: bytes {first}-{end}/{size}\r\n");
                    answer(stream, "206 Partial Content", &headers, &blob[first..])
                }
                _ => answer(stream, "200 OK", "", blob),
            };
        }
    }
    let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}"#;
    answer(stream, "404 Not Found", "", body)
}
