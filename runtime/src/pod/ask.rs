//! Asking a live pod, and telling it to end, without being counted as a session.
//!
//! Runs in the commands. No lock is taken: a pod that ends meanwhile is not there.

use rustix::net::RecvFlags;

use super::find::{ANSWER, begin};
use super::{Connection, ConnectionError, FindError, PodPaths, PodStatus, Reply, Request};

/// How the pod is; `None` when it is not alive.
///
/// # Errors
///
/// When its run directory is not the user's, or the supervisor does not answer.
pub fn status(paths: &PodPaths) -> Result<Option<PodStatus>, FindError> {
    match ask(paths, &Request::Status)? {
        Some((Reply::Status(status), _)) => Ok(Some(*status)),
        Some((other, _)) => Err(unexpected(&other)),
        None => Ok(None),
    }
}

/// Ends the pod, in order or at once, and returns when nothing of it is left but
/// files that are being removed. Says whether it was alive.
///
/// # Errors
///
/// As [`status`].
pub fn stop(paths: &PodPaths, now: bool) -> Result<bool, FindError> {
    match ask(paths, &Request::Stop { now })? {
        Some((Reply::Stopping, connection)) => {
            // The supervisor hangs up once all is gone.
            while connection.receive::<Reply>(RecvFlags::empty()).is_ok() {}
            Ok(true)
        }
        Some((other, _)) => Err(unexpected(&other)),
        None => Ok(false),
    }
}

fn ask(paths: &PodPaths, request: &Request) -> Result<Option<(Reply, Connection)>, FindError> {
    let run = paths.open_run()?;
    let Some(connection) = begin(&run, request)? else {
        return Ok(None);
    };
    match connection.receive_within::<Reply>(ANSWER) {
        Ok((reply, _)) => Ok(Some((reply, connection))),
        Err(ConnectionError::Closed) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn unexpected(reply: &Reply) -> FindError {
    FindError::Refused(match reply {
        Reply::Failed { why } => why.clone(),
        _ => "the pod's supervisor answered something else than was asked".into(),
    })
}
