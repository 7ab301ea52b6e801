//! An X server of the client's side, and what is to be seen on it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::client::{self, Ssh};
use super::host::Host;
use super::{process, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// An X server on this side, 200 by 150, that wants a cookie.
pub struct Screen {
    pub display: String,
    pub authority: PathBuf,
    child: Child,
}

impl Screen {
    pub fn start(host: &Host, name: &str) -> Self {
        let authority = host.dir.join(format!("{name}.xauth"));
        // Any cookie will do; not the same for two servers.
        let cookie = format!("{:0>32x}", 0xc0ff_ee00 + u64::from(name.as_bytes()[0]));
        let xauth = |display: &str| {
            let file = authority.to_str().unwrap();
            let added = client::local("xauth", ["-q", "-f", file, "add", display, ".", &cookie]);
            assert_eq!(added.code, Some(0), "{added}");
        };
        xauth(":0");
        let mut child = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "200x150x24", "-auth"])
            .arg(&authority)
            .args(["-nolisten", "tcp", "-noreset"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        says.read_line(&mut line).unwrap();
        let display = format!(":{}", line.trim());
        xauth(&display);
        Self {
            display,
            authority,
            child,
        }
    }

    /// `ssh` with this display, and `-X` or `-Y`.
    pub fn forwarded<'h>(&self, ssh: Ssh<'h>, trusted: bool) -> Ssh<'h> {
        let trusted = if trusted { "yes" } else { "no" };
        ssh.option("-X")
            .option(format!("-oForwardX11Trusted={trusted}"))
            .env("DISPLAY", &self.display)
            .env("XAUTHORITY", self.authority.to_str().unwrap())
    }

    /// The colour of a pixel, as a person would see it.
    pub fn pixel(&self, x: usize, y: usize) -> u32 {
        let mut command = Command::new("xwd");
        command.args(["-root", "-silent", "-display", &self.display]);
        client::clean(&mut command);
        command.env("XAUTHORITY", &self.authority);
        let shot = client::run(command, Vec::new(), LIMIT).stdout;
        // XWDFile.h: a header of big-endian numbers, colours, rows.
        let field =
            |n: usize| u32::from_be_bytes(shot[4 * n..4 * n + 4].try_into().unwrap()) as usize;
        let (header, byte_order, bits, row, colours) =
            (field(0), field(7), field(11), field(12), field(19));
        assert_eq!((field(4), field(5), bits), (200, 150, 32));
        let at = header + colours * 12 + y * row + 4 * x;
        let bytes: [u8; 4] = shot[at..at + 4].try_into().unwrap();
        let pixel = match byte_order {
            0 => u32::from_le_bytes(bytes),
            _ => u32::from_be_bytes(bytes),
        };
        pixel & 0x00ff_ffff
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Not SIGKILL: it would leave its lock.
        process::signal(i32::try_from(self.child.id()).unwrap(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A clock in a corner, its face in one colour.
pub fn clock(program: &str, colour: &str) -> String {
    format!(
        "exec {program} -analog -geometry 100x100+0+0 -bg '{colour}' -fg '{colour}' -hd '{colour}' -hl '{colour}'"
    )
}

/// Waits until that colour is where the clock is, then ends the session, and its window with it.
#[track_caller]
pub fn shows(screen: &Screen, mut session: Child, colour: u32) {
    wait_for("the window is on the screen", LIMIT, || {
        if session.try_wait().unwrap().is_some() {
            let mut why = String::new();
            let mut errors = session.stderr.take().unwrap();
            std::io::Read::read_to_string(&mut errors, &mut why).unwrap();
            panic!("the client has ended: {why}");
        }
        screen.pixel(3, 3) == colour && screen.pixel(96, 96) == colour
    });
    // Beside it there is nothing.
    assert_eq!(screen.pixel(150, 120), 0);
    session.kill().unwrap();
    session.wait().unwrap();
    wait_for("the window is gone", LIMIT, || screen.pixel(3, 3) == 0);
}
