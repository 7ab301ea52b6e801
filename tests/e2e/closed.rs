//! Without the session module sshd would forward into the host: every kind is closed.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::support::host::{Host, free_port};
use crate::support::net::{Answerer, QUESTION, ask, body, by_socks};
use crate::support::process::Process;
use crate::support::wait_for;
use crate::tests;

tests![
    nothing_of_the_host_is_reached,
    sshd_alone_would_reach_it,
    nothing_of_the_host_is_listened_on,
    no_socket_of_the_host_is_reached,
];

const LIMIT: Duration = Duration::from_secs(30);

/// ssh -N in the background, ended on drop.
struct Forward(std::process::Child);

impl Forward {
    fn new(host: &Host, options: &[&str]) -> Self {
        let mut client = host.login().option("-N");
        for option in options {
            client = client.option(*option);
        }
        Self(client.spawn())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listening(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn through(host: &Host, destination: &str) -> String {
    let output = host
        .login()
        .option("-W")
        .option(destination)
        .input(QUESTION)
        .run();
    body(&output.stdout)
}

fn nothing_of_the_host_is_reached() {
    let host = Host::shared("busybox");
    let decoy = Answerer::new("host");
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(through(&host, &format!("{name}:{}", decoy.port)), "");
    }
    let (port, socks) = (free_port(), free_port());
    let local = format!("{port}:localhost:{}", decoy.port);
    let _forward = Forward::new(&host, &["-L", &local, "-D", &socks.to_string()]);
    wait_for("the client listens", LIMIT, || {
        listening(port) && listening(socks)
    });
    assert_eq!(ask(port), "");
    let got = by_socks(socks, &format!("http://localhost:{}/", decoy.port));
    assert_ne!(got.code, Some(0), "{got}");
    assert_eq!(decoy.asked(), 0);
}

/// These questions do reach the host where nothing is closed.
fn sshd_alone_would_reach_it() {
    let host = Host::plain();
    let decoy = Answerer::new("host");
    assert_eq!(through(&host, &format!("localhost:{}", decoy.port)), "host");
}

fn nothing_of_the_host_is_listened_on() {
    let host = Host::shared("busybox");
    let client = Answerer::new("client");
    let port = free_port();
    let remote = format!("{port}:127.0.0.1:{}", client.port);
    let output = host
        .login()
        .option("-N")
        .option("-oExitOnForwardFailure=yes")
        .option("-R")
        .option(&remote)
        .run();
    assert_eq!(output.code, Some(255), "{output}");
    assert!(!listening(port));
    assert_eq!(client.asked(), 0);
}

fn no_socket_of_the_host_is_reached() {
    let host = Host::with_image("busybox");
    let path = host.files().join("service.sock");
    let service = UnixListener::bind(&path).unwrap();
    service.set_nonblocking(true).unwrap();
    let port = free_port();
    let _forward = Forward::new(&host, &["-L", &format!("{port}:{}", path.display())]);
    wait_for("the client listens", LIMIT, || listening(port));
    assert_eq!(ask(port), "");
    assert!(service.accept().is_err(), "the host's socket was reached");
    let made = host.files().join("made.sock");
    let output = host
        .login()
        .option("-N")
        .option("-oExitOnForwardFailure=yes")
        .option("-R")
        .option(format!("{}:127.0.0.1:{port}", made.display()))
        .run();
    assert_eq!(output.code, Some(255), "{output}");
    assert!(fs::symlink_metadata(&made).is_err());
    host.sshd_children().iter().for_each(Process::kill);
}
