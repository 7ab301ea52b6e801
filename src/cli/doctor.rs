//! `podspawn doctor`: whether the promises hold on this host.
//!
//! Runs as root for the host, and then once more as each user whom it concerns;
//! or as a user, for what a user can see.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use podspawn_runtime::pod::PodName;
use serde_json::Value;

use super::format::{Answer, says};
use super::{Place, namespace};
use crate::doctor::{Finding, State, cgroup, facts, host, pod, user};
use crate::exit::{Exit, Failure};
use crate::output::progress::Format;
use crate::output::{self, text};
use crate::server::accounts::{self, ContainerUser};
use crate::server::program;

/// Arguments of `podspawn doctor`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("For people, or a JSON array of findings")))]
pub struct Args {
    /// As root: this user alone, instead of every container user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    #[command(flatten)]
    answer: Answer,
    /// Nothing but this user's own affairs, as this user
    #[arg(long, hide = true)]
    own: bool,
    /// Try an overlay in this store, and end
    #[arg(long, hide = true, value_name = "DIR")]
    try_overlay: Option<PathBuf>,
    /// Try to get into a cgroup with limits, and end
    #[arg(long, hide = true)]
    try_cgroup: bool,
    /// Try to make a pod, and end
    #[arg(long, hide = true)]
    try_pod: bool,
    /// Make the pod of this name, run something in it, and end
    #[arg(long, hide = true, value_name = "POD")]
    in_pod: Option<PodName>,
}

/// Looks, and says what was found. Status 1 if something promised does not hold.
///
/// # Errors
///
/// When it cannot look.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    if let Some(root) = &args.try_overlay {
        return try_overlay(root).map(|()| Exit::Success);
    }
    if args.try_cgroup {
        let place = Place::of_process(None, named)?;
        return cgroup::ask(&place).map(|()| Exit::Success);
    }
    if args.try_pod {
        let place = Place::of_process(None, named)?;
        return pod::try_one(&place, facts::podspawn(named)).map(|()| Exit::Success);
    }
    if let Some(name) = &args.in_pod {
        let place = Place::of_process(None, named)?;
        return pod::go_in(&place, name.clone()).map(|()| Exit::Success);
    }
    let root = rustix::process::geteuid().is_root();
    let mut findings: Vec<Value> = Vec::new();
    if !args.own {
        let host = host::findings(&facts::HostFacts::gather(named));
        findings.extend(host.iter().map(|finding| finding.json(None)));
    }
    if root {
        let users = match &args.user {
            Some(name) => vec![accounts::get(name)?],
            None => accounts::list()?,
        };
        for user in users {
            findings.extend(as_user(&user, named)?);
        }
    } else {
        match Place::of_process(args.user.as_deref(), named) {
            Ok(place) => {
                let own = user::findings(&facts::UserFacts::gather(&place, named));
                findings.extend(own.iter().map(|f| f.json(Some(&place.account.name))));
            }
            Err(failure) if args.own => return Err(failure),
            // What is so of the host is worth knowing all the same.
            Err(failure) => {
                let fix = "correct that, and look again";
                findings.push(no_view(failure.line(), fix.into()).json(None));
            }
        }
    }
    output::answer(&match args.answer.format {
        Format::Json => format!("{:#}\n", Value::Array(findings.clone())),
        Format::Text => findings.iter().map(paragraph).collect(),
    })?;
    let broken = findings.iter().any(|f| f["state"] == State::Broken.word());
    Ok(if broken && !args.own {
        Exit::Status(1)
    } else {
        Exit::Success
    })
}

/// What this user finds, from a process that is theirs in every respect.
fn as_user(user: &ContainerUser, named: Option<&Path>) -> Result<Vec<Value>, Failure> {
    let setpriv =
        program::find("setpriv").ok_or_else(|| Failure::new("setpriv is not installed"))?;
    let mut command = Command::new(setpriv);
    let ids = [
        format!("--reuid={}", user.uid),
        format!("--regid={}", user.gid),
    ];
    command
        .args(ids)
        .args(["--init-groups", "--reset-env", "--"]);
    // Not /proc/self/exe, which is setpriv's there.
    command.arg(std::env::current_exe().map_err(Failure::from)?);
    if let Some(named) = named {
        command.arg("--config").arg(named);
    }
    command
        .args(["doctor", "--own", "--format", "json"])
        .current_dir("/");
    let done = command.output().map_err(Failure::from)?;
    serde_json::from_slice(&done.stdout).or_else(|_| {
        let said = String::from_utf8_lossy(&done.stderr);
        let line = said.lines().next().unwrap_or("no reason given").to_owned();
        let fix = format!("see it as that user: setpriv --reuid={0} --regid={1} --init-groups --reset-env podspawn doctor", user.uid, user.gid);
        Ok(vec![no_view(&line, fix).json(Some(&user.name))])
    })
}

/// There is nothing that podspawn could do for the user.
fn no_view(why: &str, fix: String) -> Finding {
    let (what, costs) = ("the user's own view", "the user cannot run podspawn");
    Finding::broken(what, why, costs, fix)
}

/// A finding for people: a line, and what to do about it below.
fn paragraph(finding: &Value) -> String {
    let of = |key: &str| text::escape(finding[key].as_str().unwrap_or_default()).into_owned();
    let whose = match finding["user"].as_str() {
        Some(name) => format!("{}: ", text::escape(name)),
        None => String::new(),
    };
    let mut said = format!(
        "{:7}  {whose}{}: {}\n",
        of("state"),
        of("what"),
        of("found")
    );
    for (title, key) in [("costs", "costs"), ("to do", "fix")] {
        if !of(key).is_empty() {
            said.push_str(&format!("         {title}: {}\n", of(key)));
        }
    }
    said
}

/// In a directory beside the user's images and pods, which is where overlays will be.
fn try_overlay(root: &Path) -> Result<(), Failure> {
    let place = Place::of_process(None, None);
    // A configuration that is wrong has a finding of its own.
    let account =
        place.map_or_else(|_| crate::account::Account::of_process(), |p| Ok(p.account))?;
    let map = namespace::map_of(&account)?;
    let dir = root.join(format!("doctor.{}", std::process::id()));
    let io = |e: std::io::Error| Failure::new(format!("{}: {e}", dir.display()));
    // As a store is made, should there be none.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&dir)
        .map_err(io)?;
    let tried = podspawn_runtime::idmap::enter(&map)
        .map_err(Failure::from)
        .and_then(|()| Ok(podspawn_runtime::probe::overlay(&dir)?));
    let _ = std::fs::remove_dir_all(&dir);
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_below_it() {
        let finding = Finding::broken(
            "pasta",
            "not\ninstalled",
            "no network",
            "apt-get install passt",
        );
        assert_eq!(
            paragraph(&finding.json(Some("alice"))),
            "broken   alice: pasta: not\\ninstalled\n         costs: no network\n         \
             to do: apt-get install passt\n"
        );
        assert_eq!(
            paragraph(&Finding::good("nft", "/usr/sbin/nft").json(None)),
            "ok       nft: /usr/sbin/nft\n"
        );
    }
}
