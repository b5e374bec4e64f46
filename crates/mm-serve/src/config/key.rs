//! Keys of clients.

use crate::{Error, Result};
use serde::Deserialize;

/// A key of a client.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Who has it; stands in the log.
    pub name: String,
    /// The key itself.
    pub key: Option<String>,
    /// The environment variable that holds the key, so that it need not be in a file.
    pub key_env: Option<String>,
    /// Requests a minute; unlimited when absent.
    pub requests_per_minute: Option<u32>,
}

impl std::fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KeyConfig {
    /// The key.
    ///
    /// # Errors
    /// When there is none, or it is too short to be one.
    pub(crate) fn secret(&self) -> Result<String> {
        let setting = format!("key {}", self.name);
        let key = match (&self.key, &self.key_env) {
            (Some(key), None) => key.clone(),
            (None, Some(name)) => std::env::var(name)
                .map_err(|_| Error::setting(&setting, format!("no environment variable {name}"), "one with the key"))?,
            _ => return Err(Error::setting(setting, "both or neither", "`key` or `key_env`")),
        };
        if key.len() < 16 {
            return Err(Error::setting(setting, format!("{} characters", key.len()), "at least 16"));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed_and_must_be_long() {
        let key = |key: &str| KeyConfig {
            name: "team".into(),
            key: Some(key.into()),
            key_env: None,
            requests_per_minute: None,
        };
        assert!(key("short").secret().unwrap_err().to_string().contains("at least 16"));
        assert_eq!(key("0123456789abcdef").secret().unwrap(), "0123456789abcdef");
        assert!(!format!("{:?}", key("0123456789abcdef")).contains("0123"));
    }
}
