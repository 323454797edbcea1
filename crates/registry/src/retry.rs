//! When to try again, and after which pause.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ureq::http::{HeaderMap, header};

use crate::{RegistryError, Retries};

/// How often at most a connection is tried that cannot even be made: a name that does not exist or
/// a port where nobody listens seldom mend themselves while somebody waits.
const CONNECT_ATTEMPTS: u32 = 3;

impl Retries {
    /// The pause before the next attempt after `made` attempts, the last of which failed like this;
    /// `None` if there is to be none.
    pub(crate) fn pause(&self, made: u32, error: &RegistryError) -> Option<Duration> {
        let limit = match error {
            RegistryError::Connection { established: false, .. } => {
                self.attempts.min(CONNECT_ATTEMPTS)
            }
            _ => self.attempts,
        };
        if made >= limit || !error.is_temporary() {
            return None;
        }
        match error.retry_after() {
            Some(wait) if wait > self.longest_wait => None,
            Some(wait) => Some(wait.max(self.backoff(made))),
            None => Some(self.backoff(made)),
        }
    }

    fn backoff(&self, made: u32) -> Duration {
        let doublings = made.saturating_sub(1).min(20);
        let whole = self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay);
        // Between a half and the whole.
        whole.mul_f64(0.5 + f64::from(random_byte()) / 512.0)
    }
}

/// A byte that differs from process to process and from call to call; nothing secret hangs on it.
fn random_byte() -> u8 {
    RandomState::new().hash_one(0_u8).to_le_bytes()[0]
}

/// What a `Retry-After` header asks for: seconds, or a date (RFC 9110 §10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = date.duration_since(Timestamp::try_from(now).ok()?);
    Some(Duration::try_from(wait).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Answer, Attempt};

    fn status(status: u16, retry_after: Option<u64>) -> RegistryError {
        let attempt = Box::new(Attempt::for_tests());
        let answer = Answer { status, text: String::new() };
        RegistryError::Status { attempt, answer, retry_after: retry_after.map(Duration::from_secs) }
    }

    fn connection(established: bool) -> RegistryError {
        RegistryError::Connection {
            attempt: Box::new(Attempt::for_tests()),
            problem: String::new(),
            way_out: String::new(),
            established,
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let retries = Retries { attempts: 100, ..Retries::default() };
        for (made, whole) in [(1, 500), (2, 1000), (3, 2000), (7, 20_000), (99, 20_000)] {
            let pause = retries.pause(made, &status(503, None)).unwrap();
            assert!(pause >= Duration::from_millis(whole / 2), "{made}: {pause:?}");
            assert!(pause <= Duration::from_millis(whole), "{made}: {pause:?}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let retries = Retries::default();
        for (error, tried) in [
            (status(500, None), true),
            (status(504, None), true),
            (status(408, None), true),
            (status(501, None), false),
            (status(400, None), false),
            (status(503, Some(90)), true),
            (status(503, Some(91)), false),
            (connection(true), true),
            (connection(false), true),
        ] {
            assert_eq!(retries.pause(1, &error).is_some(), tried, "{error:?}");
        }
        assert!(retries.pause(5, &connection(true)).is_some());
        assert!(retries.pause(6, &connection(true)).is_none());
        assert!(retries.pause(3, &connection(false)).is_none());
    }

    #[test]
    fn a_registry_is_given_the_time_it_asks_for() {
        let pause = Retries::default().pause(1, &status(503, Some(7)));
        assert_eq!(pause, Some(Duration::from_secs(7)));
    }

    #[test]
    fn retry_after_has_two_forms() {
        // 1994-11-06 08:49:37 UTC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
