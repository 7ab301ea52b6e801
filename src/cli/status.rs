//! `podspawn status`: how pods are, for people, programs and Prometheus.

use std::path::Path;

use podspawn_runtime::metrics::{Counter, Latency, Metrics};
use podspawn_runtime::pod::{Mode, PodName, PodStatus};
use serde_json::json;

use super::Place;
use super::format::{Answer, says};
use super::pods::{self, Known};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::prometheus::{Kind, Text};
use crate::output::{self, text};

/// Arguments of `podspawn status`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("Lines for people, or a JSON object")))]
pub struct Args {
    /// The pod; all that are there unless given
    #[arg(value_name = "POD")]
    pod: Option<PodName>,
    /// Numbers for Prometheus, in its text format
    #[arg(long, conflicts_with_all = ["pod", "format"])]
    prometheus: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Shows.
///
/// # Errors
///
/// When the pods' directories cannot be read, or there is no such pod.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let place = Place::of_process(None, named)?;
    let pods = match &args.pod {
        Some(name) => vec![pods::one(&place, name)?],
        None => {
            let mut pods = pods::all(&place)?;
            pods.retain(Known::is_there);
            pods
        }
    };
    output::answer(&if args.prometheus {
        let metrics = Metrics::open(&pods::run_dir(&place)?);
        prometheus(&place.account.name, &pods, &metrics)
    } else if args.answer.format == Format::Json {
        let pods: Vec<_> = pods.iter().map(Known::json).collect();
        let status = json!({
            "user": place.account.name,
            "version": env!("CARGO_PKG_VERSION"),
            "pods": pods,
        });
        format!("{status:#}\n")
    } else if pods.is_empty() {
        "no pod is running\n".into()
    } else {
        let blocks: Vec<String> = pods.iter().map(block).collect();
        blocks.join("\n")
    })?;
    Ok(Exit::Success)
}

/// What is known of one pod, a line each.
fn block(pod: &Known) -> String {
    let mut lines = vec![
        ("pod", pod.name().to_string()),
        ("state", pod.state().into()),
    ];
    if let Some(pid) = pod.supervisor() {
        lines.push(("supervisor", format!("process {pid}")));
    }
    if let Some(status) = pod.status() {
        lines.extend([
            ("image", status.image.clone()),
            ("mode", status.mode.to_string()),
            ("sessions", status.sessions.to_string()),
            ("age", text::seconds(status.age)),
            ("ends", ends(status)),
        ]);
        lines.push(("network", status.network.clone()));
        for service in &status.services {
            lines.push(("service", pods::service(service)));
        }
        if status.limits.is_empty() {
            lines.push(("limits", "none".into()));
        }
        for limit in &status.limits {
            let word = if limit.in_force {
                "in force"
            } else {
                "not in force"
            };
            lines.push((
                &limit.name,
                format!("{}, {word}: {}", limit.value, limit.how),
            ));
        }
    }
    lines
        .iter()
        .map(|(name, value)| format!("{name:<11} {}\n", text::escape(value)))
        .collect()
}

fn ends(status: &PodStatus) -> String {
    match (status.expires_in, status.mode) {
        (Some(left), _) => format!("in {}", text::seconds(left)),
        (None, Mode::Persistent) => "when it is stopped".into(),
        (None, _) => "some time after its last session".into(),
    }
}

fn prometheus(user: &str, pods: &[Known], metrics: &Metrics) -> String {
    let mine: &[(&str, &str)] = &[("user", user)];
    let mut text = Text::default();
    let states = ["running", "idle", "starting", "unresponsive"];
    let labels = states.map(|state| [("user", user), ("state", state)]);
    let samples: Vec<(&[(&str, &str)], u64)> = states
        .iter()
        .zip(&labels)
        .map(|(state, labels)| {
            let count = pods.iter().filter(|pod| pod.state() == *state).count();
            (&labels[..], count as u64)
        })
        .collect();
    text.metric(
        "podspawn_pods",
        Kind::Gauge,
        "Pods that are there, by state.",
        &samples,
    );
    let sessions: usize = pods
        .iter()
        .filter_map(|p| p.status())
        .map(|s| s.sessions)
        .sum();
    text.metric(
        "podspawn_sessions",
        Kind::Gauge,
        "Sessions in pods now.",
        &[(mine, sessions as u64)],
    );
    text.metric(
        "podspawn_sessions_total",
        Kind::Counter,
        "Sessions that ran.",
        &[(mine, metrics.get(Counter::Sessions))],
    );
    let create = metrics.histogram(Latency::Create);
    text.metric(
        "podspawn_creates_total",
        Kind::Counter,
        "Pods that were created.",
        &[(mine, create.buckets.iter().sum())],
    );
    let failure = |what| [("user", user), ("what", what)];
    text.metric(
        "podspawn_failures_total",
        Kind::Counter,
        "Sessions that could not be had: the image could not, the pod could not be created, or could not be joined.",
        &[
            (&failure("image"), metrics.get(Counter::ImageFailures)),
            (&failure("create"), metrics.get(Counter::CreateFailures)),
            (&failure("join"), metrics.get(Counter::JoinFailures)),
        ],
    );
    text.histogram(
        "podspawn_create_seconds",
        "Time to create a pod, without getting the image.",
        mine,
        &create,
    );
    text.histogram(
        "podspawn_join_seconds",
        "Time to join a pod that is there, until its supervisor has answered.",
        mine,
        &metrics.histogram(Latency::Join),
    );
    text.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pods::tests::{dead, running};

    #[test]
    fn a_pod_is_a_block_of_lines() {
        assert_eq!(
            block(&running("default")),
            "pod         default\n\
             state       running\n\
             supervisor  process 42\n\
             image       docker.io/library/debian:12\n\
             mode        grace-period\n\
             sessions    2\n\
             age         3 min 5 s\n\
             ends        in 1 h 0 min\n\
             network     pasta\n\
             service     db: down, 10.213.0.2, restarts 3: it ended with status 1 | no space\n\
             cpus        2, in force: \n\
             memory      2g, not in force: \n"
        );
        assert_eq!(
            block(&dead("web")),
            "pod         web\nstate       stopped\n"
        );
    }

    #[test]
    fn numbers_are_those_of_the_pods() {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let run = podspawn_runtime::pod::RunDir::of_user(Some(dir.path()), uid).unwrap();
        let metrics = Metrics::open(&run);
        metrics.count(Counter::Sessions);
        let text = prometheus("alice", &[running("a"), running("b")], &metrics);
        for line in [
            r#"podspawn_pods{user="alice",state="running"} 2"#,
            r#"podspawn_pods{user="alice",state="idle"} 0"#,
            r#"podspawn_sessions{user="alice"} 4"#,
            r#"podspawn_sessions_total{user="alice"} 1"#,
            r#"podspawn_failures_total{user="alice",what="join"} 0"#,
            r#"podspawn_join_seconds_count{user="alice"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
