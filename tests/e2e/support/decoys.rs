//! Listeners of the host's that no pod may reach.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Listeners of the host's, each of which says "decoy".
pub struct Decoys {
    reached: Arc<Mutex<Vec<String>>>,
}

impl Decoys {
    /// On this port of each address, TCP and UDP.
    pub fn on(port: u16, addresses: &[&str]) -> Self {
        let reached = Arc::new(Mutex::new(Vec::new()));
        for address in addresses {
            let at = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
            let listener = TcpListener::bind(at).unwrap();
            let (seen, name) = (reached.clone(), format!("TCP {address}"));
            std::thread::spawn(move || {
                while let Ok((mut client, _)) = listener.accept() {
                    seen.lock().unwrap().push(name.clone());
                    let _ = client.write_all(b"decoy\n");
                }
            });
            let socket = UdpSocket::bind(at).unwrap();
            let (seen, name) = (reached.clone(), format!("UDP {address}"));
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    seen.lock().unwrap().push(name.clone());
                    let _ = socket.send_to(b"decoy\n", from);
                }
            });
        }
        // A decoy that does not work would prove nothing.
        let first = SocketAddr::new(addresses[0].parse().unwrap(), port);
        let mut said = String::new();
        let mut client = std::net::TcpStream::connect(first).unwrap();
        std::io::Read::read_to_string(&mut client, &mut said).unwrap();
        assert_eq!(said, "decoy\n");
        reached.lock().unwrap().clear();
        Self { reached }
    }

    /// Nobody came.
    #[track_caller]
    pub fn were_not_reached(&self) {
        // A datagram has no answer to wait for.
        std::thread::sleep(Duration::from_millis(300));
        let reached = self.reached.lock().unwrap();
        assert!(reached.is_empty(), "reached from a pod: {reached:?}");
    }
}

/// The host's link-local address.
pub fn link_local() -> String {
    let text = fs::read_to_string("/proc/net/if_inet6").unwrap();
    let line = text.lines().find(|line| line.starts_with("fe80")).unwrap();
    let groups: Vec<&str> = (0..8).map(|n| &line[4 * n..4 * n + 4]).collect();
    groups.join(":")
}
