//! Whether the user's images are as they were unpacked: what `podspawn store check` says.
//!
//! In a process of its own, which enters the user's namespace. Nothing is mended.

use std::process::Command;

use super::Finding;

const WHAT: &str = "store";

/// What was found: the counts of what is well, or a line for each damage.
pub type Health = Result<String, Vec<String>>;

/// Looks at every file of the store.
///
/// # Errors
///
/// What is damaged, or why it could not be looked at.
pub fn check(mut podspawn: Command) -> Health {
    let done = podspawn
        .args(["store", "check", "--no-repair"])
        .output()
        .map_err(|e| vec![e.to_string()])?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned());
    }
    let text = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<String> = text
        .lines()
        .map(|line| super::own(line).to_owned())
        .collect();
    Err(match lines.is_empty() {
        true => vec![done.status.to_string()],
        false => lines,
    })
}

/// Judges.
#[must_use]
pub fn finding(health: &Health, name: &str) -> Finding {
    match health {
        Ok(counts) if counts.is_empty() => Finding::good(WHAT, "no images yet"),
        Ok(counts) => Finding::good(WHAT, counts.clone()),
        Err(lines) => {
            let first = lines.first().map_or("no reason given", String::as_str);
            let found = match lines.len() {
                0 | 1 => first.to_owned(),
                more => format!("{first} (and {} more)", more - 1),
            };
            Finding::broken(
                WHAT,
                found,
                "pods of these images do not start, or show files that are not the image's",
                format!("as {name}: podspawn store check, which fetches again what is damaged"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn damage_is_told_in_one_line() {
        let well = finding(
            &Ok("1 name, 1 image and 1 layer are as they should be".into()),
            "al",
        );
        assert_eq!(well.state, State::Good);
        assert_eq!(finding(&Ok(String::new()), "al").found, "no images yet");
        let lines = ["damaged: layer sha256:1: x", "damaged: image sha256:2: y"];
        let bad = finding(&Err(lines.map(String::from).into()), "al");
        assert_eq!(bad.state, State::Broken);
        assert_eq!(bad.found, "damaged: layer sha256:1: x (and 1 more)");
        assert!(bad.fix.starts_with("as al: podspawn store check"));
    }
}
