//! A program in a terminal of its own, and the screen that its user sees.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

/// The program, its pty and its screen.
pub struct Terminal {
    child: Child,
    master: File,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    parser: vt100::Parser,
    raw: Vec<u8>,
}

/// How long the program may take to show what is awaited.
const LIMIT: Duration = Duration::from_secs(20);

impl Terminal {
    /// Runs `command` in a new terminal of 24 rows and 80 columns.
    pub fn open(command: Command) -> Self {
        Self::with_modes(command, |_| ())
    }

    /// The same, with other modes than those of a new terminal.
    pub fn with_modes(command: Command, change: impl FnOnce(&mut Termios)) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave: OwnedFd = ioctl_tiocgptpeer(&master, flags).unwrap();
        let mut modes = tcgetattr(&slave).unwrap();
        change(&mut modes);
        tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes).unwrap();
        tcsetwinsize(&master, size(24, 80)).unwrap();
        // setsid gives the program the terminal as its own and becomes it.
        let mut inside = Command::new("setsid");
        inside
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        super::client::clean(&mut inside);
        inside.env("TERM", "xterm-256color");
        inside.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        inside.stdin(Stdio::from(slave.try_clone().unwrap()));
        inside.stdout(Stdio::from(slave.try_clone().unwrap()));
        inside.stderr(Stdio::from(slave));
        let child = inside.spawn().unwrap();
        drop(inside);
        let parser = vt100::Parser::new(cells(24), cells(80), 0);
        let screen = Arc::new(Mutex::new(Screen {
            parser,
            raw: Vec::new(),
        }));
        let master = File::from(master);
        let (mut source, shown) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            // Reading fails with EIO when the last process has closed the terminal.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let mut shown = shown.lock().unwrap();
                shown.parser.process(&buffer[..count]);
                shown.raw.extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child,
            master,
            screen,
        }
    }

    /// Types.
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.master.write_all(text.as_ref()).unwrap();
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.screen
            .lock()
            .unwrap()
            .parser
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
    }

    /// What is on the screen.
    pub fn contents(&self) -> String {
        self.screen.lock().unwrap().parser.screen().contents()
    }

    /// Everything that was written.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap().raw).into_owned()
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_that(text, |screen| screen.contains(text));
    }

    /// Waits until the screen is as awaited.
    #[track_caller]
    pub fn expect_that(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let end = Instant::now() + LIMIT;
        loop {
            let contents = self.contents();
            if condition(&contents) {
                return;
            }
            assert!(
                Instant::now() < end,
                "never on the screen: {what}; it shows\n{contents}\n----"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the program's end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The reader may still be at the last of the output.
                std::thread::sleep(Duration::from_millis(50));
                return status;
            }
            assert!(
                Instant::now() < end,
                "the program goes on; the screen shows\n{}\n----",
                self.contents()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The program's process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a screen has rows and columns")
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
