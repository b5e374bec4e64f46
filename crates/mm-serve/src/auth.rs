//! Keys of clients, compared in constant time, each with its rate.

use crate::{
    Result,
    config::KeyConfig,
    error::{ApiError, Kind},
};
use sha2::{Digest, Sha256};
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};
use subtle::ConstantTimeEq;

/// The keys of a server.
pub(crate) struct Keys(Vec<Key>);

struct Key {
    name: String,
    /// Hashes have one length, so that a comparison tells nothing about the key's.
    digest: [u8; 32],
    rate: Option<Rate>,
}

impl Keys {
    /// Keys as they are configured.
    ///
    /// # Errors
    /// When one is missing or too short.
    pub(crate) fn new(configs: &[KeyConfig]) -> Result<Self> {
        let key = |config: &KeyConfig| {
            let digest = Sha256::digest(config.secret()?.as_bytes()).into();
            Ok(Key { name: config.name.clone(), digest, rate: config.requests_per_minute.map(Rate::new) })
        };
        configs.iter().map(key).collect::<Result<_>>().map(Self)
    }

    /// Whether requests need no key.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the key in a header `Authorization: Bearer KEY`; none where the server has no keys.
    pub(crate) fn check(&self, authorization: Option<&str>) -> Result<Option<&str>, ApiError> {
        if self.are_none() {
            return Ok(None);
        }
        let refused = |message: &str| ApiError::new(Kind::Unauthorized, message).with_code("invalid_api_key");
        let given = authorization
            .and_then(|value| value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")));
        let Some((_, given)) = given else {
            return Err(refused("this server needs a key: Authorization: Bearer KEY"));
        };
        let digest: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        // Every key is compared, whichever is right.
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        let key = found.ok_or_else(|| refused("the key is not one of this server's"))?;
        if let Some(seconds) = key.rate.as_ref().and_then(Rate::wait) {
            let message = format!("key {} has used its requests of this minute", key.name);
            return Err(ApiError::new(Kind::Busy, message).with_code("rate_limit_exceeded").with_retry_after(seconds));
        }
        Ok(Some(&key.name))
    }
}

/// A bucket of tokens that is refilled evenly: a minute's requests may come at once, and then as they are refilled.
struct Rate {
    per_minute: f64,
    state: Mutex<(f64, Instant)>,
}

impl Rate {
    fn new(per_minute: u32) -> Self {
        let per_minute = f64::from(per_minute.max(1));
        Self { per_minute, state: Mutex::new((per_minute, Instant::now())) }
    }

    /// Takes one request; the seconds to wait where none is left.
    fn wait(&self) -> Option<u64> {
        self.wait_at(Instant::now())
    }

    fn wait_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *state;
        let refilled = left + now.saturating_duration_since(at).as_secs_f64() * self.per_minute / 60.0;
        let left = refilled.min(self.per_minute);
        if left < 1.0 {
            *state = (left, now);
            return Some(((1.0 - left) * 60.0 / self.per_minute).ceil() as u64);
        }
        *state = (left - 1.0, now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn keys() -> Keys {
        let key = |name: &str, key: &str| KeyConfig {
            name: name.into(),
            key: Some(key.into()),
            key_env: None,
            requests_per_minute: Some(2),
        };
        Keys::new(&[key("first", "0123456789abcdef"), key("second", "fedcba9876543210")]).unwrap()
    }

    #[test]
    fn a_request_needs_one_of_the_keys() {
        let keys = keys();
        assert_eq!(keys.check(Some("Bearer fedcba9876543210")).unwrap(), Some("second"));
        assert_eq!(keys.check(Some("bearer 0123456789abcdef")).unwrap(), Some("first"));
        for wrong in [None, Some("0123456789abcdef"), Some("Basic 0123456789abcdef"), Some("Bearer 0123456789abcde")] {
            assert_eq!(keys.check(wrong).unwrap_err().kind, Kind::Unauthorized, "{wrong:?}");
        }
        assert_eq!(Keys::new(&[]).unwrap().check(None).unwrap(), None);
    }

    #[test]
    fn a_key_has_its_rate_and_gets_new_requests_as_time_passes() {
        let (rate, start) = (Rate::new(60), Instant::now());
        assert!((0..60).all(|_| rate.wait_at(start).is_none()));
        assert_eq!(rate.wait_at(start), Some(1));
        assert_eq!(rate.wait_at(start + Duration::from_millis(1100)), None);
        let keys = keys();
        let mut errors = (0..3).filter_map(|_| keys.check(Some("Bearer fedcba9876543210")).err());
        assert_eq!(errors.next().map(|e| e.kind), Some(Kind::Busy));
        assert!(keys.check(Some("Bearer 0123456789abcdef")).is_ok());
    }
}
