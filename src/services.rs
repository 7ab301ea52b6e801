//! Services on the way to a session: what the runtime is told of them, and waiting
//! for them.
//!
//! Runs in the session. A command waits until every service is ready, because it
//! may need them at once; a shell opens, and its user is told.

use std::path::Path;
use std::time::{Duration, Instant};

use podspawn_images::health::Test;
use podspawn_images::store::Image;
use podspawn_runtime::pod::{self, Condition, PodInfo, PodPaths, PodStatus, ServiceStatus};
use podspawn_runtime::session::Action;
use podspawn_runtime::supervisor::{Check, CheckCommand, PodImage, ServiceSpec, Volume};

use crate::exit::{Failure, chain};
use crate::podfile::{Podfile, Service, Source};
use crate::{output, volumes};

/// How long a command waits at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long it waits at most for the way out, which is nobody's to wait for longer.
const NETWORK_PATIENCE: Duration = Duration::from_secs(5);

/// How often to ask.
const LOOK: Duration = Duration::from_millis(50);

/// How often to ask whether the network is up, which takes some 30 ms.
const SOON: Duration = Duration::from_millis(3);

/// One that ended so often before it was ready is not waited for.
const DEATHS: u32 = 3;

/// How long one attempt of a `ready` command may take.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait at most before an image's health check is run again: its own interval
/// is for a server that runs already.
const HEALTH_PAUSE: Duration = Duration::from_secs(1);

/// What tells that `service` is ready, beside its ports: its Podfile's word, else its image's.
///
/// # Errors
///
/// When the image's health check makes no sense.
pub fn check(service: &Service, image: &Image) -> Result<Option<Check>, Failure> {
    if let Some(line) = &service.ready {
        return Ok(Some(Check {
            name: "its ready command",
            command: CheckCommand::Shell(line.clone()),
            timeout: READY_TIMEOUT,
            pause: Duration::ZERO,
        }));
    }
    let health = image.health_check().map_err(|e| {
        let instead = "the field ready of the service goes before it";
        Failure::new(format!(
            "service {}: {}; {instead}",
            service.name,
            chain(&e)
        ))
    })?;
    Ok(health.map(|health| Check {
        name: "its image's health check",
        command: match health.test {
            Test::Shell(line) => CheckCommand::Shell(line),
            Test::Program(words) => CheckCommand::Program(words),
        },
        timeout: health.timeout.min(PATIENCE),
        pause: health.interval.min(HEALTH_PAUSE),
    }))
}

/// What the runtime is told of `service`, whose image is in the store at `root`.
pub fn spec(
    service: &Service,
    image: PodImage,
    check: Option<Check>,
    root: &Path,
    user: &str,
    pod: &str,
) -> ServiceSpec {
    let volumes = service.volumes.iter().map(|volume| {
        let (source, named) = match &volume.source {
            Source::Named(name) => (volumes::path(root, name), true),
            Source::Host(path) => (path.clone(), false),
        };
        Volume {
            source,
            named,
            target: volume.target.clone(),
            read_only: volume.read_only,
        }
    });
    ServiceSpec {
        name: service.name.clone(),
        image,
        ports: service.ports.clone(),
        env: Podfile::expanded(&service.env, user, pod),
        command: service.command.clone(),
        volumes: volumes.collect(),
        check,
    }
}

/// Waits until the pod's way out is known and every service is ready; a shell only
/// says what is not, if `told`.
///
/// # Errors
///
/// One line about a service that is not, after its last lines.
pub fn wait(paths: &PodPaths, info: &PodInfo, action: &Action, told: bool) -> Result<(), Failure> {
    let is_shell = matches!(action, Action::Shell);
    if !info.comes_up || (is_shell && !told) {
        return Ok(());
    }
    let begin = Instant::now();
    let mut pause = SOON;
    while let Some(status) = status(paths) {
        let unready: Vec<&ServiceStatus> =
            status.services.iter().filter(|s| !s.was_ready).collect();
        if is_shell {
            if !unready.is_empty() {
                let names: Vec<_> = unready.iter().map(|s| s.name.as_str()).collect();
                output::notice(&format!("still starting: {}", names.join(", ")));
            }
            return Ok(());
        }
        let network_settled = !status.network_comes_up || begin.elapsed() > NETWORK_PATIENCE;
        if unready.is_empty() && network_settled {
            return Ok(());
        }
        let hopeless = unready.iter().find(|s| s.restarts >= DEATHS);
        let late = unready.first().filter(|_| begin.elapsed() > PATIENCE);
        if let Some(service) = hopeless.or(late) {
            return Err(Failure::new(failed(service)));
        }
        if !unready.is_empty() {
            pause = (pause * 2).min(LOOK);
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// What the pod's supervisor says of it; `None` if it says nothing.
pub fn status(paths: &PodPaths) -> Option<PodStatus> {
    match pod::look_at(std::slice::from_ref(paths)).pop() {
        Some(Condition::Alive(alive)) => Some(alive.status),
        _ => None,
    }
}

/// In one line which service is not ready, and why.
fn failed(service: &ServiceStatus) -> String {
    let what = match service.restarts {
        0 => format!("is not ready after {} s", PATIENCE.as_secs()),
        times => format!("does not start; it was tried {} times", times + 1),
    };
    let why = match service.why.is_empty() {
        true => "it wrote nothing".to_owned(),
        false => service.why.join(" | "),
    };
    format!("service {} {what}: {why}", service.name)
}
