//! `podspawn verify-image`: whether an image can serve, before anybody needs it.
//!
//! Looks at the image's files as a pod would see them, then logs in to a
//! throw-away pod of it by a real sshd. The user's own pods are left alone.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use podspawn_images::reference::Reference;
use podspawn_runtime::idmap::{self, IdMap};
use podspawn_runtime::look;
use podspawn_runtime::pod::{remove, stop};
use serde_json::json;

use super::format::{Answer, says};
use super::sshd::unquotable;
use super::{Place, namespace};
use crate::exit::{Exit, Failure, chain};
use crate::output::progress::Format;
use crate::output::{self, table::table};
use crate::own_sshd;
use crate::verify::live::{self, Login};
use crate::verify::{Finding, State, contents};

/// Arguments of `podspawn verify-image`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("format", says("A table for people, or one JSON object")))]
pub struct Args {
    /// The image; it is pulled if it is missing
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Look at the image only, without a pod
    #[arg(long)]
    no_login: bool,
    #[command(flatten)]
    answer: Answer,
}

/// Verifies, and prints what was found.
///
/// # Errors
///
/// One line, when the image cannot be had or looked at.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    let mut place = Place::of_process(None, named)?;
    place.config.image = args.reference.clone();
    let map = namespace::map_of(&place.account)?;
    let image = crate::spec::image(&place, &args.reference, &map)?;
    // The layers are in use as long as this is held.
    let lease = image.lease()?;
    let pods = place.root.join("pods");
    std::fs::create_dir_all(&pods)?;
    let work = tempfile::Builder::new()
        .prefix(".verify-")
        .tempdir_in(&pods)
        .map_err(|e| {
            Failure::new(format!(
                "cannot make a directory in {}: {e}",
                pods.display()
            ))
        })?;
    let there = look::which_exist(&map, &image.layers, work.path(), &contents::paths())?;
    let mut findings = contents::judge(&there);
    if !args.no_login {
        let has = |name: &str| {
            findings
                .iter()
                .any(|f| f.name == name && f.state == State::Present)
        };
        let (shell, rsync) = (has("shell"), has("rsync"));
        findings.extend(log_in(&place, &map, named, &args.reference, shell, rsync)?);
    }
    drop(lease);
    output::answer(&said(args, &findings))?;
    Ok(if findings.iter().any(Finding::fails) {
        Exit::Status(1)
    } else {
        Exit::Success
    })
}

fn log_in(
    place: &Place,
    map: &IdMap,
    named: Option<&Path>,
    reference: &Reference,
    shell: bool,
    rsync: bool,
) -> Result<Vec<Finding>, Failure> {
    let paths = crate::session::paths(place, crate::session::throw_away("verify")?)?;
    let pod = &paths.name;
    // sshd and ssh split settings at blanks; nothing in this name needs quoting.
    let dir = tempfile::Builder::new()
        .prefix("podspawn-verify-")
        .tempdir_in("/tmp")
        .map_err(|e| Failure::new(format!("cannot make a directory in /tmp: {e}")))?;
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(format!("cannot find podspawn's own file: {e}")))?;
    let config = match named {
        Some(file) => format!(" --config {}", quoted(file)?),
        None => String::new(),
    };
    let login = Login {
        dir: dir.path(),
        forced: format!(
            "exec {}{config} spawn --project {pod} --image {reference}",
            quoted(&program)?
        ),
        environment: environment(),
        user: &place.account.name,
    };
    let attempts = live::attempts(&login, shell, rsync);
    stop(&paths, true)?;
    // Files of pods belong to ids of the user's namespace.
    idmap::enter(map)?;
    remove(&paths, &[]).map_err(|e| Failure::new(format!("pod {}: {}", paths.name, chain(&e))))?;
    Ok(attempts?)
}

/// What tells podspawn where its directories are: sshd passes nothing on.
fn environment() -> Vec<(&'static str, PathBuf)> {
    ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"]
        .into_iter()
        .filter_map(|name| Some((name, PathBuf::from(std::env::var_os(name)?))))
        .filter(|(_, path)| {
            path.is_absolute() && !path.to_string_lossy().contains([' ', '"', '\n'])
        })
        .collect()
}

fn quoted(path: &Path) -> Result<String, Failure> {
    let word = path.to_str().and_then(own_sshd::quoted);
    word.ok_or_else(unquotable)
}

fn said(args: &Args, findings: &[Finding]) -> String {
    let fits = !findings.iter().any(Finding::fails);
    if args.answer.format == Format::Json {
        let list: Vec<_> = findings.iter().map(Finding::json).collect();
        let all = json!({"image": args.reference.to_string(), "fits": fits, "findings": list});
        return format!("{all}\n");
    }
    let rows: Vec<[String; 3]> = findings
        .iter()
        .map(|f| [f.name.to_owned(), f.state.word().to_owned(), f.note.clone()])
        .collect();
    let mut text = table(["WHAT", "STATE", "NOTE"], &rows);
    for finding in findings {
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "for {}: {fix}", finding.name);
        }
    }
    text
}
