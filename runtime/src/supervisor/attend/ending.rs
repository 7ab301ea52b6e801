//! The end of a pod: everybody is told, helpers stop, every process is ended, and
//! what they wrote goes. The namespaces go with the supervisor.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, wait};

use super::life::Reason;
use super::{Supervisor, timeout};
use crate::pod::Reply;
use crate::record::AuditEvent;
use crate::supervisor::storage;
use crate::sys;

/// How long processes may take to end after SIGTERM before they are killed.
const STOP: Duration = Duration::from_secs(5);

/// How long the kernel may take for those that are killed.
const KILLED: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Ends the pod.
    pub fn end(mut self, why: &Reason) {
        self.state.log.line(format_args!("ending: {why}"));
        // Before anything else: who comes from now on makes a new pod.
        self.door.close();
        self.part(why);
        let hasty = why.is_hasty();
        self.stop_helpers(hasty);
        if !hasty {
            sys::kill_all(Signal::SIGTERM);
            sys::kill_all(Signal::SIGHUP);
            sys::kill_all(Signal::SIGCONT);
            self.wait_for_children(Instant::now() + STOP);
        }
        sys::kill_all(Signal::SIGKILL);
        self.wait_for_children(Instant::now() + KILLED);
        let storage = self.state.spec.paths.storage();
        let kept = match self.state.spec.keep_root {
            true => storage::sync(storage),
            false => storage::set_aside(storage),
        };
        if let Err(e) = kept {
            self.state.log.line(format_args!("what it wrote: {e}"));
        }
        self.state.log.line("ended");
        let reason = why.to_string();
        crate::supervisor::audit(self.state.spec, AuditEvent::Destroy { reason: &reason });
        // The next supervisor, and who asked for the end, need not wait for the removal.
        drop((self.storage, self.peers));
        storage::sweep(storage);
    }

    /// Tells sessions why they end, and turns away those who only ask.
    fn part(&mut self, why: &Reason) {
        let reply = Reply::Ending {
            why: why.to_string(),
        };
        self.peers
            .retain(|peer| peer.session.is_some() || peer.awaits_end);
        for peer in self.peers.iter().filter(|peer| peer.session.is_some()) {
            let _ = peer.connection.send(&reply, &[]);
        }
    }

    /// The last to come is the first to go.
    fn stop_helpers(&mut self, hasty: bool) {
        while let Some(mut helper) = self.helpers.pop() {
            helper.stop(hasty, self.state.log);
            let begin = Instant::now();
            while let Some(patience) = helper.stopping().filter(|_| !hasty) {
                let until = begin + patience;
                if until <= Instant::now() {
                    let name = helper.name();
                    let line = format_args!("{name} did not stop within {} s", patience.as_secs());
                    self.state.log.line(line);
                    break;
                }
                self.wait_for_signal(until);
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    helper.exited(pid, status, self.state.log);
                }
            }
        }
    }

    fn wait_for_children(&self, until: Instant) {
        loop {
            loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            if until <= Instant::now() {
                return;
            }
            self.wait_for_signal(until);
        }
    }

    fn wait_for_signal(&self, until: Instant) {
        let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
        let _ = poll(&mut fds, timeout(Some(until)).as_ref());
        while self.signals.next().is_some() {}
    }
}
