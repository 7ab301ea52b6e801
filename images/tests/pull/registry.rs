//! A real registry on loopback, and filling it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podspawn_images::digest::Digest;

use crate::content::Image;
use crate::http::request;

/// `docker-registry`, until dropped.
pub struct Registry {
    pub address: SocketAddr,
    process: Child,
    dir: tempfile::TempDir,
    storage: PathBuf,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::configured(None, "", "")
    }

    /// One with the same storage as `other`, and further configuration: lines
    /// below `http:`, and whole sections.
    pub fn beside(other: &Registry, http: &str, sections: &str) -> Registry {
        Registry::configured(Some(&other.storage), http, sections)
    }

    fn configured(storage: Option<&Path>, http: &str, sections: &str) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let storage = storage.map_or_else(|| dir.path().join("storage"), Path::to_owned);
        // The port may be taken between our looking and its listening.
        for _ in 0..20 {
            let address = TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .unwrap();
            let config = dir.path().join("config.yml");
            let text = format!(
                "version: 0.1\nlog: {{accesslog: {{disabled: false}}, level: error}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http:\n  addr: {address}\n{http}{sections}",
                storage.display()
            );
            std::fs::write(&config, text).unwrap();
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while process.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if TcpStream::connect(address).is_ok() {
                    return Registry {
                        address,
                        process,
                        dir,
                        storage,
                    };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!(
            "the registry does not start: {}",
            std::fs::read_to_string(dir.path().join("log")).unwrap()
        );
    }

    /// `127.0.0.1:port/name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// What was asked for so far, from the access log: `GET /v2/…`.
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        let quoted = log.lines().filter_map(|line| line.split('"').nth(1));
        let requests = quoted.filter(|request| request.contains(" /v2/"));
        requests
            .map(|request| request.trim_end_matches(" HTTP/1.1").to_owned())
            .collect()
    }

    /// Those of `requests` for one kind of thing.
    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|r| r.contains(part)).count()
    }

    pub fn put_blob(&self, repository: &str, blob: &[u8]) {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = request(self.address, "POST", &path, "", b"");
        assert_eq!(begun.status, 202);
        let location = &begun.headers["location"];
        let path = location.split_once("/v2/").unwrap().1;
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{path}{joint}digest={}", Digest::of(blob));
        let octets = "Content-Type: application/octet-stream\r\n";
        assert_eq!(
            request(self.address, "PUT", &path, octets, blob).status,
            201
        );
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let headers = format!("Content-Type: {media_type}\r\n");
        let put = request(self.address, "PUT", &path, &headers, manifest);
        assert_eq!(put.status, 201, "{repository}:{tag}");
    }

    /// Pushes an image.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        for layer in &image.layers {
            self.put_blob(repository, &layer.blob);
        }
        self.put_blob(repository, &image.config);
        let media_type = crate::content::OCI_MANIFEST;
        self.put_manifest(repository, tag, media_type, &image.manifest);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
