//! How often a request is tried again, and what is reported before each further attempt.

use crate::{error::Error, report::note};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant, SystemTime},
};

/// When a request that failed is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// The most attempts, the first included.
    pub attempts: u32,
    /// The pause before the second attempt; each further one is twice as long as the one before.
    pub first_pause: Duration,
    /// The longest pause, unless the server asks for more.
    pub max_pause: Duration,
    /// Time after which no attempt begins.
    pub max_time: Duration,
}

impl RetryPolicy {
    /// Requests to object stores: they answer 503 as long as many workers read at the same time.
    #[cfg(feature = "storage")]
    pub const STORE: Self = Self { attempts: 13, first_pause: Duration::from_millis(200), ..Self::DOWNLOAD };
    /// Downloads of files, which are resumed.
    pub const DOWNLOAD: Self = Self {
        attempts: 4,
        first_pause: Duration::from_secs(2),
        max_pause: Duration::from_secs(15),
        max_time: Duration::from_secs(180),
    };
    /// Small requests, for instance to the API of the hub.
    pub const QUERY: Self = Self { first_pause: Duration::from_millis(300), ..Self::DOWNLOAD };
}

/// The attempts of one request.
pub(crate) struct Retries {
    policy: RetryPolicy,
    begun: Instant,
    attempt: u32,
    /// A pause that the server asks for and that exceeds the time.
    too_long: Option<Duration>,
}

impl Retries {
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, begun: Instant::now(), attempt: 1, too_long: None }
    }

    /// The pause after an attempt that failed, which is reported with the reason; `None` when there is no further attempt.
    /// `retry_after` is what the server asks for, in seconds.
    pub fn pause(&mut self, reason: &str, retry_after: Option<u64>) -> Option<Duration> {
        let RetryPolicy { attempts, first_pause, max_pause, max_time } = self.policy;
        if self.attempt >= attempts {
            return None;
        }
        let doubled = first_pause.saturating_mul(1 << (self.attempt - 1).min(20)).min(max_pause);
        // Not all workers at the same moment.
        let pause = retry_after.map_or_else(|| doubled.mul_f64(1.0 - 0.25 * random()), Duration::from_secs);
        if self.begun.elapsed().saturating_add(pause) > max_time {
            self.too_long = Some(pause);
            return None;
        }
        self.attempt += 1;
        let (seconds, attempt) = (pause.as_secs_f64(), self.attempt);
        note(format!("warning: {reason}; trying again in {seconds:.1} s (attempt {attempt} of {attempts})"));
        Some(pause)
    }

    /// Waits before a further attempt, which is reported with the reason; false where there is none.
    pub fn wait(&mut self, reason: &str, retry_after: Option<u64>) -> bool {
        let pause = self.pause(reason, retry_after);
        pause.inspect(|pause| std::thread::sleep(*pause)).is_some()
    }

    /// [`Retries::wait`] after an error; false as well where a further attempt would fail in the same way.
    pub fn wait_after(&mut self, error: &Error, reason: &str) -> bool {
        let retry_after = if let Error::Status { retry_after, .. } = error { *retry_after } else { None };
        may_succeed_later(error) && self.wait(reason, retry_after)
    }

    /// How often and for how long it was tried, to follow the reason; empty after one attempt.
    pub fn summary(&self) -> String {
        let (attempts, seconds) = (self.attempt, self.begun.elapsed().as_secs_f64());
        let asked = self.too_long.map(|pause| format!(", and the next attempt would begin in {} s", pause.as_secs()));
        match (attempts, &asked) {
            (1, None) => String::new(),
            (1, Some(asked)) => format!(" (tried once{asked}; try again later)"),
            _ => format!(" (tried {attempts} times in {seconds:.0} s{}; try again later)", asked.unwrap_or_default()),
        }
    }
}

/// Whether a request that was answered with a status may succeed later.
pub(crate) fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429) || (status >= 500 && ![501, 505].contains(&status))
}

/// Whether a request that failed with an error may succeed when it is sent again: after a temporary status, where there is
/// no connection or it broke, and where a JSON document ends in the middle.
pub(crate) fn may_succeed_later(error: &Error) -> bool {
    use ureq::Error::{BadUri, Http, InvalidProxyUrl, RedirectFailed, TooManyRedirects};
    match error {
        Error::Status { status, .. } => is_temporary(*status),
        Error::Connection { .. } => true,
        Error::Context { source, .. } => {
            if let Some(error) = source.downcast_ref::<ureq::Error>() {
                return !matches!(error, BadUri(_) | Http(_) | InvalidProxyUrl | RedirectFailed | TooManyRedirects);
            }
            let is_cut = source.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_eof);
            is_cut || source.is::<std::io::Error>()
        }
        // A full disk, what is too large, and answers that are not what was asked for.
        _ => false,
    }
}

/// The seconds that a server asks to wait in the header `Retry-After`: a number, or a date.
pub(crate) fn retry_after(value: &str) -> Option<u64> {
    let value = value.trim();
    let of_date = || {
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(SystemTime::now()).map_or(0, |pause| pause.as_secs() + 1))
    };
    value.parse().ok().or_else(of_date)
}

/// A number between 0 and 1.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Context;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 4, first_pause: Duration::from_secs(4), ..RetryPolicy::DOWNLOAD };

    #[test]
    fn pauses_double_up_to_the_longest_and_end_after_the_last_attempt() {
        let mut retries = Retries::new(RetryPolicy { attempts: 6, ..POLICY });
        assert_eq!(retries.summary(), "");
        let pauses: Vec<f64> = std::iter::from_fn(|| retries.pause("u: 429", None)).map(|p| p.as_secs_f64()).collect();
        assert_eq!(pauses.len(), 5);
        for (pause, longest) in pauses.iter().zip([4.0, 8.0, 15.0, 15.0, 15.0]) {
            assert!((0.75 * longest..=longest).contains(pause), "{pauses:?}");
        }
        assert_eq!(retries.summary(), " (tried 6 times in 0 s; try again later)");
    }

    #[test]
    fn a_server_is_asked_again_when_it_says_unless_that_is_too_late() {
        let mut retries = Retries::new(POLICY);
        assert_eq!(retries.pause("u: 429", Some(7)), Some(Duration::from_secs(7)));
        assert_eq!(retries.pause("u: 429", Some(600)), None);
        let summary = retries.summary();
        assert!(summary.contains("tried 2 times in 0 s, and the next attempt would begin in 600 s"), "{summary}");
        let mut retries = Retries::new(POLICY);
        assert_eq!(retries.pause("u: 429", Some(u64::MAX)), None);
        assert_eq!(retries.pause("u: 429", Some(600)), None);
        assert!(retries.summary().contains("tried once, and the next attempt"), "{}", retries.summary());
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        assert_eq!(retry_after(" 120 "), Some(120));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
        assert!((88..=91).contains(&retry_after(&date).unwrap()), "{date}");
        assert_eq!(retry_after("soon"), None);
        let temporary: Vec<u16> = (400..600).filter(|status| is_temporary(*status)).collect();
        assert!([408, 429, 500, 502, 503, 504].iter().all(|status| temporary.contains(status)), "{temporary:?}");
        assert!([400, 401, 403, 404, 409, 412, 501, 505].iter().all(|status| !temporary.contains(status)));
    }

    #[test]
    fn what_stays_as_it_is_is_not_tried_again() {
        fn context<T, E>(result: Result<T, E>) -> Error
        where
            Result<T, E>: Context<T>,
        {
            result.context("u cannot be read").err().unwrap()
        }
        let json = |text: &str| context(serde_json::from_str::<serde_json::Value>(text));
        let status = |status| Error::Status { url: "u".into(), status, retry_after: None };
        let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        for error in [
            status(503),
            Error::Connection { url: "u".into(), reason: "no data for 10 seconds".into() },
            context(Err::<(), _>(ureq::Error::Io(reset()))),
            context(Err::<(), _>(ureq::Error::HostNotFound)),
            context(Err::<(), _>(reset())),
            json("{\"a\": [1,"),
            json(""),
        ] {
            assert!(may_succeed_later(&error), "{error:?}");
        }
        for error in [
            status(404),
            context(Err::<(), _>(ureq::Error::TooManyRedirects)),
            context(Err::<(), _>(ureq::Error::BadUri("u".into()))),
            context(Err::<(), _>(status(404))),
            json("<html>"),
            Error::Other("more than 10 bytes came".into()),
            Error::Size { url: "u".into(), found: 5, expected: 4 },
        ] {
            assert!(!may_succeed_later(&error), "{error:?}");
        }
    }
}
