//! When to try again. Pure but for the dice.

use std::time::{Duration, SystemTime};

use super::config::RetryPolicy;
use super::error::{Again, FailureKind, RequestError, seconds};

/// How long to wait after the `failed`th failure in a row, or `None` to give up.
///
/// A registry that stalls has already cost a whole timeout: it gets one more
/// chance, whatever the policy's attempts.
pub(crate) fn wait(policy: &RetryPolicy, failed: u32, error: &RequestError) -> Option<Duration> {
    let attempts = match error.kind {
        FailureKind::Stalled => policy.attempts.min(2),
        _ => policy.attempts,
    };
    if failed >= attempts {
        return None;
    }
    match error.again {
        Again::Never => None,
        Again::Backoff => Some(backoff(policy, failed, fastrand::f64())),
        Again::After(wait) if wait > policy.max_retry_after => None,
        Again::After(wait) => Some(wait),
    }
}

/// Doubles with every failure; the upper half is left to chance, so that many
/// clients that failed together do not come back together.
fn backoff(policy: &RetryPolicy, failed: u32, chance: f64) -> Duration {
    let factor = 1u32
        .checked_shl(failed.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let full = policy.base.saturating_mul(factor).min(policy.max);
    full.mul_f64(0.5 + chance / 2.0)
}

/// `error` after the last of `failed` attempts, saying what was tried.
pub(crate) fn give_up(policy: &RetryPolicy, failed: u32, mut error: RequestError) -> RequestError {
    if let Again::After(wait) = error.again
        && wait > policy.max_retry_after
    {
        error.message += &format!(", asking to wait {}", seconds(wait));
    } else if failed > 1 {
        error.message += &format!(", {failed} times");
    }
    error.again = Again::Never;
    error
}

/// Reads a `Retry-After` header: seconds, or an HTTP date.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 4,
        base: Duration::from_millis(100),
        max: Duration::from_millis(300),
        max_retry_after: Duration::from_secs(10),
    };

    #[test]
    fn waits_double_up_to_the_maximum_with_jitter_below() {
        for (failed, full) in [(1, 100), (2, 200), (3, 300), (40, 300), (u32::MAX, 300)] {
            let full = Duration::from_millis(full);
            assert_eq!(backoff(&POLICY, failed, 1.0), full);
            assert_eq!(backoff(&POLICY, failed, 0.0), full / 2);
        }
    }

    #[test]
    fn gives_up_after_the_attempts_and_sooner_when_stalled() {
        let lost = RequestError::passing(FailureKind::Connection, "lost");
        assert!(wait(&POLICY, 3, &lost).is_some() && wait(&POLICY, 4, &lost).is_none());
        let stalled = RequestError::stalled("h", "no byte", Duration::from_secs(1));
        assert!(wait(&POLICY, 1, &stalled).is_some() && wait(&POLICY, 2, &stalled).is_none());
        let gone = RequestError::new(FailureKind::NotFound, "gone");
        assert!(wait(&POLICY, 1, &gone).is_none());
    }

    #[test]
    fn a_registry_may_name_the_wait_within_reason() {
        let mut error = RequestError::passing(FailureKind::RateLimited, "429");
        error.again = Again::After(Duration::from_secs(9));
        assert_eq!(wait(&POLICY, 1, &error), Some(Duration::from_secs(9)));
        error.again = Again::After(Duration::from_secs(11));
        assert_eq!(wait(&POLICY, 1, &error), None);
        assert_eq!(
            give_up(&POLICY, 1, error).message,
            "429, asking to wait 11 s"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(7)));
        let past = "Sat, 06 Nov 1993 08:49:37 GMT";
        assert_eq!(retry_after(past, now), Some(Duration::ZERO));
        for bad in ["", "-1", "soon", "1e9", "99999999999999999999999"] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }
}
