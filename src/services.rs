//! Services on the way to a session: what the runtime is told of them, and waiting
//! for them.
//!
//! Runs in the session. A command waits until every service is ready, because it
//! may need them at once; a shell opens, and its user is told.

use std::path::Path;
use std::time::{Duration, Instant};

use podspawn_runtime::pod::{self, PodPaths, ServiceState, ServiceStatus};
use podspawn_runtime::supervisor::{PodImage, ServiceSpec, Volume};

use crate::exit::Failure;
use crate::output;
use crate::podfile::{Podfile, Service, Source};

/// How long a command waits at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often to ask.
const LOOK: Duration = Duration::from_millis(50);

/// One that ended so often before it was ready is not waited for.
const DEATHS: u32 = 3;

/// What the runtime is told of `service`, whose image is in the store at `root`.
pub fn spec(service: &Service, image: PodImage, root: &Path, user: &str, pod: &str) -> ServiceSpec {
    let volumes = service.volumes.iter().map(|volume| {
        let (source, named) = match &volume.source {
            Source::Named(name) => (root.join("volumes").join(name), true),
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
        ready: service.ready.clone(),
    }
}

/// Waits until every service of the pod is ready; `shell` only tells.
///
/// # Errors
///
/// One line about a service that is not, after its last lines.
pub fn wait(paths: &PodPaths, shell: bool, told: bool) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let Some(status) = pod::status(paths)? else {
            return Ok(());
        };
        let unready: Vec<&ServiceStatus> = status
            .services
            .iter()
            .filter(|s| s.state != ServiceState::Ready)
            .collect();
        if unready.is_empty() {
            return Ok(());
        }
        if shell {
            if told {
                let names: Vec<_> = unready.iter().map(|s| s.name.as_str()).collect();
                output::notice(&format!("still starting: {}", names.join(", ")));
            }
            return Ok(());
        }
        let hopeless = unready.iter().find(|s| s.restarts >= DEATHS);
        let late = unready.first().filter(|_| Instant::now() > until);
        if let Some(service) = hopeless.or(late) {
            return Err(Failure::new(failed(service)));
        }
        std::thread::sleep(LOOK);
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
