//! The arguments, and what is said of wrong ones in one line.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;
use crate::exit::Failure;
use crate::output;

/// Reads the arguments, the program's name first; `None` if they asked for help
/// or the version, which has then been shown.
///
/// # Errors
///
/// One line about an argument that is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Cli>, Failure> {
    let error = match Cli::try_parse_from(args) {
        Ok(cli) => return Ok(Some(cli)),
        Err(error) => error,
    };
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        output::answer(&error.to_string())?;
        return Ok(None);
    }
    let line = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command is given".to_owned(),
        _ => one_line(&error.to_string()),
    };
    Err(Failure::new(format!("{line}; see --help")))
}

/// What clap says over several lines, without the usage.
fn one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let mut line = String::new();
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        if part.starts_with("Usage:") || part.starts_with("For more information") {
            break;
        }
        let glue = if line.is_empty() {
            ""
        } else if line.ends_with(':') {
            " "
        } else {
            "; "
        };
        line.push_str(glue);
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn refused(args: &[&str]) -> String {
        let args = std::iter::once("podspawn").chain(args.iter().copied());
        parse(args.map(OsString::from))
            .unwrap_err()
            .line()
            .to_owned()
    }

    #[test]
    fn the_arguments_of_clap_hold_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_arguments_are_one_line() {
        for (args, line) in [
            (
                &["pul"][..],
                "unrecognized subcommand 'pul'; tip: a similar subcommand exists: 'pull'; see --help",
            ),
            (
                &["pull"],
                "the following required arguments were not provided: <REFERENCE>; see --help",
            ),
            (
                &["pull", "x", "--quite"],
                "unexpected argument '--quite' found; tip: a similar argument exists: '--quiet'; see --help",
            ),
        ] {
            assert_eq!(refused(args), line);
        }
        let line = refused(&["pull", "UPPER"]);
        assert!(
            line.starts_with("invalid value 'UPPER' for '<REFERENCE>': "),
            "{line}"
        );
        assert!(!line.contains('\n'));
        assert_eq!(refused(&[]), "no command is given; see --help");
    }

    #[test]
    fn arguments_need_not_be_utf8() {
        let raw = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let args = |last: &[u8]| {
            [
                "podspawn".into(),
                "--config".into(),
                raw(b"/x\xff"),
                "pull".into(),
                raw(last),
            ]
        };
        let cli = parse(args(b"x")).unwrap().unwrap();
        assert_eq!(cli.config, Some(raw(b"/x\xff").into()));
        assert!(parse(args(b"x\xff")).unwrap_err().line().contains("UTF-8"));
    }
}
