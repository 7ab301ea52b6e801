//! What the verbs about pods share: which there are, how they are, and how that
//! is shown.

use podspawn_runtime::pod::{
    self, Condition, PodName, PodPaths, PodState, PodStatus, RunDir, ServiceState, ServiceStatus,
};
use serde_json::json;

use super::Place;
use crate::exit::Failure;

/// A pod and how it was found.
#[derive(Debug)]
pub struct Known {
    name: PodName,
    condition: Condition,
}

/// The run directory of the user.
///
/// # Errors
///
/// When it is not the user's alone.
pub fn run_dir(place: &Place) -> Result<RunDir, Failure> {
    Ok(RunDir::of_user(
        place.directories.runtime.as_deref(),
        place.account.uid,
    )?)
}

/// The places of one pod.
///
/// # Errors
///
/// As [`run_dir`].
pub fn paths(place: &Place, name: &PodName) -> Result<PodPaths, Failure> {
    Ok(PodPaths::new(&run_dir(place)?, &place.root, name.clone()))
}

/// Every pod that is there or has left something, by name.
///
/// # Errors
///
/// When the directories cannot be read.
pub fn all(place: &Place) -> Result<Vec<Known>, Failure> {
    let run = run_dir(place)?;
    let names = pod::names(&run, &place.root)?;
    let paths: Vec<PodPaths> = names
        .into_iter()
        .map(|name| PodPaths::new(&run, &place.root, name))
        .collect();
    let conditions = pod::look_at(&paths);
    Ok(paths
        .into_iter()
        .zip(conditions)
        .map(|(paths, condition)| Known {
            name: paths.name,
            condition,
        })
        .collect())
}

/// One pod, which must be there or have left something.
///
/// # Errors
///
/// When there is no such pod.
pub fn one(place: &Place, name: &PodName) -> Result<Known, Failure> {
    all(place)?
        .into_iter()
        .find(|pod| pod.name == *name)
        .ok_or_else(|| no_such(name))
}

/// What is said of a pod that is not there.
#[must_use]
pub fn no_such(name: &PodName) -> Failure {
    Failure::new(format!("there is no pod {name}; podspawn list shows yours"))
}

impl Known {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &PodName {
        &self.name
    }

    /// What its supervisor says, if it is there and answers.
    #[must_use]
    pub fn status(&self) -> Option<&PodStatus> {
        match &self.condition {
            Condition::Alive(alive) => Some(&alive.status),
            _ => None,
        }
    }

    /// The supervisor's process, if there is one.
    #[must_use]
    pub fn supervisor(&self) -> Option<i32> {
        match &self.condition {
            Condition::Alive(alive) => alive.supervisor,
            Condition::Silent { supervisor } => *supervisor,
            Condition::Starting | Condition::Gone => None,
        }
    }

    /// Whether anything of it runs.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.condition, Condition::Gone)
    }

    /// The state in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.condition {
            Condition::Alive(alive) => match alive.status.state {
                PodState::Running => "running",
                PodState::Idle => "idle",
            },
            Condition::Starting => "starting",
            Condition::Silent { .. } => "unresponsive",
            Condition::Gone => "stopped",
        }
    }

    /// As a JSON object, with the same names whatever is known.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let status = self.status();
        json!({
            "pod": self.name.as_str(),
            "state": self.state(),
            "supervisor": self.supervisor(),
            "image": status.map(|s| &s.image),
            "mode": status.map(|s| s.mode),
            "sessions": status.map(|s| s.sessions),
            "created": status.map(|s| s.created),
            "age": status.map(|s| s.age),
            "expires_in": status.and_then(|s| s.expires_in),
            "limits": status.map(|s| &s.limits),
            "network": status.map(|s| &s.network),
            "services": status.map(|s| &s.services),
            "descriptors": status.map(|s| s.descriptors),
        })
    }
}

/// A service in one line: how it is, where, how often it was started again, and why
/// it is not ready.
#[must_use]
pub fn service(service: &ServiceStatus) -> String {
    let state = service_state(service.state);
    let mut line = format!("{}: {state}, {}", service.name, service.address);
    if service.restarts > 0 {
        line.push_str(&format!(", restarts {}", service.restarts));
    }
    if !service.why.is_empty() {
        line.push_str(&format!(": {}", service.why.join(" | ")));
    }
    line
}

fn service_state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Starting => "starting",
        ServiceState::Ready => "ready",
        ServiceState::Down => "down",
    }
}

/// The services in a few words each.
#[must_use]
pub fn services(status: &PodStatus) -> Option<String> {
    let words: Vec<String> = status
        .services
        .iter()
        .map(|service| {
            let restarts = match service.restarts {
                0 => String::new(),
                times => format!(", restarts {times}"),
            };
            let state = service_state(service.state);
            format!("{}({state}{restarts})", service.name)
        })
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The limits in a few words; one that is not in force is marked.
#[must_use]
pub fn limits(status: &PodStatus) -> Option<String> {
    let words: Vec<String> = status
        .limits
        .iter()
        .map(|limit| {
            let not = if limit.in_force { "" } else { "(no)" };
            format!("{}={}{not}", limit.name, limit.value)
        })
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use podspawn_runtime::pod::{Alive, Limit, Mode};

    pub fn running(name: &str) -> Known {
        let limit = |name: &str, value: &str, in_force| Limit {
            name: name.into(),
            value: value.into(),
            in_force,
            how: String::new(),
        };
        let status = PodStatus {
            pod: name.into(),
            state: PodState::Running,
            image: "docker.io/library/debian:12".into(),
            mode: Mode::GracePeriod,
            sessions: 2,
            created: 1_764_000_000,
            age: 185,
            expires_in: Some(3600),
            limits: vec![limit("cpus", "2", true), limit("memory", "2g", false)],
            network: "pasta".into(),
            network_comes_up: false,
            services: vec![ServiceStatus {
                name: "db".into(),
                image: "docker.io/library/postgres:17".into(),
                state: ServiceState::Down,
                was_ready: true,
                address: "10.213.0.2".into(),
                restarts: 3,
                why: vec!["it ended with status 1".into(), "no space".into()],
            }],
            descriptors: 20,
        };
        Known {
            name: name.parse().unwrap(),
            condition: Condition::Alive(Box::new(Alive {
                status,
                supervisor: Some(42),
            })),
        }
    }

    pub fn dead(name: &str) -> Known {
        Known {
            name: name.parse().unwrap(),
            condition: Condition::Gone,
        }
    }

    #[test]
    fn json_has_the_same_names_for_every_pod() {
        let keys = |pod: &Known| -> Vec<String> {
            pod.json().as_object().unwrap().keys().cloned().collect()
        };
        let (there, gone) = (running("a"), dead("b"));
        assert_eq!(keys(&there), keys(&gone));
        assert_eq!(there.json()["mode"], "grace-period");
        assert_eq!(there.json()["limits"][1]["in_force"], false);
        assert!(gone.json()["sessions"].is_null());
        assert_eq!((there.state(), gone.state()), ("running", "stopped"));
    }
}
