//! The health check of an image: Docker's `HEALTHCHECK`, which the OCI configuration has no word
//! for (`Healthcheck` in Docker's image specification 1.2).
//!
//! Pure: bytes in, a checked command or one line of refusal out. `StartPeriod` and `Retries` say
//! when a container is *unhealthy*, which nobody asks here, and are not read.

use std::time::Duration;

use serde::Deserialize;

/// Longest command that is believed, in bytes: more than an exec takes for one argument.
const MOST: usize = 128 << 10;

/// Timeout and interval of a check that names none, as Docker has them.
const USUAL: Duration = Duration::from_secs(30);

/// Longest of either that is believed.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How an image says that a container of it does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What succeeds then.
    pub test: Test,
    /// How long to wait between two attempts.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

/// The command of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// A program and its arguments.
    Program(Vec<String>),
    /// A line for the container's shell.
    Shell(String),
}

/// Why a health check cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the health check of the image cannot be used: {0}")]
pub struct HealthError(String);

#[derive(Deserialize)]
struct RawImage {
    config: Option<RawConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    healthcheck: Option<RawCheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawCheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
}

/// The health check in an image's configuration; `None` where there is none, or where the image
/// forbids one that it had from another (`NONE`).
///
/// # Errors
///
/// When it makes no sense.
pub fn parse(configuration: &[u8]) -> Result<Option<HealthCheck>, HealthError> {
    let raw: RawImage = serde_json::from_slice(configuration).map_err(|e| {
        // It may quote what it read.
        HealthError(e.to_string().chars().take(200).collect())
    })?;
    let Some(raw) = raw.config.and_then(|config| config.healthcheck) else {
        return Ok(None);
    };
    let test = raw.test.unwrap_or_default();
    let size: usize = test.iter().map(String::len).sum();
    if size > MOST || test.iter().any(|word| word.contains('\0')) {
        return Err(HealthError("its command cannot be executed".into()));
    }
    let test = match test.split_first() {
        None => return Ok(None),
        Some((kind, rest)) => match (kind.as_str(), rest) {
            ("NONE", _) => return Ok(None),
            ("CMD", [program, ..]) if !program.is_empty() => Test::Program(rest.to_vec()),
            ("CMD-SHELL", [line]) if !line.is_empty() => Test::Shell(line.clone()),
            (kind, _) => {
                let kind: String = kind.chars().take(20).collect();
                return Err(HealthError(format!(
                    "{kind:?} with {} words is not a command",
                    rest.len()
                )));
            }
        },
    };
    Ok(Some(HealthCheck {
        test,
        interval: duration(raw.interval)?,
        timeout: duration(raw.timeout)?,
    }))
}

/// From nanoseconds; 0 is as good as nothing.
fn duration(nanoseconds: Option<i64>) -> Result<Duration, HealthError> {
    match u64::try_from(nanoseconds.unwrap_or(0)) {
        Ok(0) => Ok(USUAL),
        Ok(some) => Ok(Duration::from_nanos(some).min(LONGEST)),
        Err(_) => Err(HealthError("it has a negative duration".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(check: &str) -> Result<Option<HealthCheck>, HealthError> {
        parse(format!(r#"{{"os":"linux","config":{{"Healthcheck":{check}}}}}"#).as_bytes())
    }

    #[test]
    fn a_check_is_a_program_or_a_line_for_the_shell() {
        let check = of(
            r#"{"Test":["CMD","redis-cli","ping"],"Interval":1000000000,"Timeout":2000000000,"StartPeriod":5,"Retries":3}"#,
        );
        let expected = HealthCheck {
            test: Test::Program(vec!["redis-cli".into(), "ping".into()]),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
        };
        assert_eq!(check.unwrap(), Some(expected));
        let check = of(r#"{"Test":["CMD-SHELL","pg_isready || exit 1"],"Timeout":0}"#);
        let expected = HealthCheck {
            test: Test::Shell("pg_isready || exit 1".into()),
            interval: USUAL,
            timeout: USUAL,
        };
        assert_eq!(check.unwrap(), Some(expected));
    }

    #[test]
    fn none_is_none() {
        for text in [
            "null",
            "{}",
            r#"{"Test":[]}"#,
            r#"{"Test":null}"#,
            r#"{"Test":["NONE"]}"#,
            r#"{"Interval":5}"#,
        ] {
            assert_eq!(of(text).unwrap(), None, "{text}");
        }
        for text in ["{}", r#"{"config":null}"#, r#"{"config":{}}"#] {
            assert_eq!(parse(text.as_bytes()).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_what_is_too_long_cut() {
        for text in [
            "5",
            r#"{"Test":"CMD"}"#,
            r#"{"Test":["CMD"]}"#,
            r#"{"Test":["CMD",""]}"#,
            r#"{"Test":["CMD-SHELL"]}"#,
            r#"{"Test":["CMD-SHELL","a","b"]}"#,
            r#"{"Test":["RUN","a"]}"#,
            r#"{"Test":["CMD","a\u0000b"]}"#,
            r#"{"Test":["CMD","a"],"Timeout":-1}"#,
            r#"{"Test":["CMD","a"],"Timeout":1e99}"#,
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(!error.contains('\n') && error.len() < 300, "{error}");
        }
        let long = format!(r#"{{"Test":["CMD","{}"]}}"#, "x".repeat(MOST + 1));
        assert!(of(&long).is_err());
        let check = of(r#"{"Test":["CMD","a"],"Timeout":9223372036854775807}"#);
        assert_eq!(check.unwrap().unwrap().timeout, LONGEST);
    }
}
