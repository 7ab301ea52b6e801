//! The four things that sshd asks of the module.

#![forbid(unsafe_code)]

use std::ffi::CString;

use crate::concern::{self, Member};
use crate::decide::{self, SetCred, Stage};
use crate::helper::{self, Network};
use crate::options::Options;
use crate::sys::{self, Pam};
use crate::view;

/// What the module tells PAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The module has done its part.
    Success,
    /// The module has nothing to say.
    Ignore,
    /// The session must not begin.
    Refuse,
}

/// What is kept from one call to the next, in the connection's PAM handle.
#[derive(Debug)]
pub struct State {
    monitor: u32,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Marked,
    Refused,
    Ready(Network),
}

impl State {
    fn now(progress: Progress) -> Self {
        Self {
            monitor: std::process::id(),
            progress,
        }
    }

    fn stage(&self) -> (Stage, u32) {
        let stage = match self.progress {
            Progress::Marked => Stage::Marked,
            Progress::Refused => Stage::Refused,
            Progress::Ready(_) => Stage::Ready,
        };
        (stage, self.monitor)
    }
}

/// Of PAM's environment, what podspawn needs to look in the same places as the
/// session will.
const ENVIRONMENT: [&str; 9] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "PODSPAWN_PROJECT",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "LANG",
];

/// `pam_setcred`: in the monitor it leaves the mark, in the child it enters.
pub fn setcred(pam: &mut Pam<'_>, options: &Options) -> Verdict {
    let before = pam.state::<State>().map(State::stage);
    match decide::setcred(before, std::process::id()) {
        SetCred::Nothing => {}
        SetCred::Mark => {
            // Not known is as good as concerned: the session line will say so.
            if !matches!(member(pam, options), Ok(None)) {
                pam.set_state(State::now(Progress::Marked));
            }
        }
        SetCred::End => {
            pam.log("the session line of pam_podspawn.so is missing or was skipped; refused");
            sys::exit();
        }
        SetCred::Isolate => {
            if let Err(e) = view::isolate() {
                pam.log(&format!("{e}; the connection ends"));
                sys::exit();
            }
        }
        SetCred::Enter => {
            let entered = match pam.state::<State>().map(|s| &s.progress) {
                Some(Progress::Ready(network)) => view::enter(network).map_err(|e| e.to_string()),
                _ => Err("the pod's network is not there".into()),
            };
            if let Err(e) = entered {
                pam.log(&format!("{e}; the connection ends"));
                sys::exit();
            }
        }
    }
    Verdict::Ignore
}

/// `pam_open_session`: sees that the pod is up, in the monitor.
pub fn open_session(pam: &mut Pam<'_>, options: &Options) -> Verdict {
    let member = match member(pam, options) {
        Ok(None) => return Verdict::Ignore,
        Ok(Some(member)) => member,
        Err(why) => return refuse(pam, &why),
    };
    if let Some(wrong) = &options.wrong {
        let why =
            format!("pam_podspawn.so has a wrong argument {wrong:?} in the PAM configuration");
        return refuse(pam, &why);
    }
    let before = pam.state::<State>().map(State::stage);
    if !decide::may_open(before, std::process::id()) {
        return refuse(
            pam,
            "pam_podspawn.so is missing from the auth lines of the PAM configuration",
        );
    }
    let env = ENVIRONMENT.iter().filter_map(|name| variable(pam, name));
    match helper::run(&member, options, env.collect()) {
        Ok(network) => {
            if pam.set_state(State::now(Progress::Ready(network))) {
                Verdict::Success
            } else {
                refuse(pam, "out of memory")
            }
        }
        Err(e) => refuse(pam, &e.to_string()),
    }
}

/// `pam_close_session`: the kernel does what there is to do when the monitor ends.
pub fn close_session(pam: &mut Pam<'_>) -> Verdict {
    match pam.state::<State>().map(State::stage) {
        Some((Stage::Ready, _)) => Verdict::Success,
        _ => Verdict::Ignore,
    }
}

fn refuse(pam: &mut Pam<'_>, why: &str) -> Verdict {
    pam.log(&format!("session refused: {why}"));
    pam.say(&format!("podspawn: {why}"));
    // Should the line be optional, the child still stays out of the host's network.
    pam.set_state(State::now(Progress::Refused));
    Verdict::Refuse
}

fn member(pam: &Pam<'_>, options: &Options) -> Result<Option<Member>, String> {
    match pam.user() {
        Some(name) => concern::member(&name, &options.group).map_err(|e| e.to_string()),
        // Only valid names of users can be members.
        None => Ok(None),
    }
}

fn variable(pam: &Pam<'_>, name: &str) -> Option<CString> {
    let value = pam.env(&CString::new(name).ok()?)?;
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
}
