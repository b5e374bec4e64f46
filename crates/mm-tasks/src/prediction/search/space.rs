//! Search spaces.

use crate::{Error, Result};
use mm_core::seed::Rng;
use mm_fusion::operators;

/// Keys of the config, each with the values that it may take, as they would be written there.
pub type SearchSpace = Vec<(String, Vec<String>)>;

/// Mixed into the seed, so that the settings are independent of other uses of it.
const SEED_STREAM: u64 = 0xF05E;

/// Settings of larger spaces are sampled from this many.
const MAX_SETTINGS: usize = 1_000_000;

/// Parses `KEY=VALUE|VALUE|…`.
///
/// # Errors
/// When there is no key or no value.
pub fn parse_search_space(text: &str) -> Result<(String, Vec<String>)> {
    let (key, values) = text.split_once('=').filter(|(k, v)| !k.is_empty() && !v.is_empty()).ok_or_else(|| {
        Error::invalid(format!("--space {text}"), "no key or no value", "KEY=VALUE|VALUE…, such as fusion.dim=32|64")
    })?;
    Ok((key.to_owned(), values.split('|').map(|v| v.trim().to_owned()).collect()))
}

/// Every fusion operator, with three dimensions.
fn default_space() -> SearchSpace {
    let kinds = operators().iter().map(|spec| format!("{:?}", spec.kind)).collect();
    vec![
        ("fusion.operator.kind".to_owned(), kinds),
        ("fusion.dim".to_owned(), ["32", "64", "128"].map(ToOwned::to_owned).to_vec()),
    ]
}

/// Random settings of a space (the default one when it is empty), without repetition.
pub(super) fn sample(space: &SearchSpace, num_trials: usize, seed: u64) -> Vec<Vec<(String, String)>> {
    let space = if space.is_empty() { &default_space() } else { space };
    let count: usize = space.iter().map(|(_, values)| values.len()).product();
    let mut indices: Vec<usize> = (0..count.min(MAX_SETTINGS)).collect();
    Rng::new(&[seed, SEED_STREAM]).shuffle(&mut indices);
    indices.truncate(num_trials);
    let setting = |mut index: usize| {
        let values = space.iter().map(|(key, values)| {
            let value = values[index % values.len()].clone();
            index /= values.len();
            (key.clone(), value)
        });
        values.collect()
    };
    indices.into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_small_space_are_sampled_without_repetition() {
        let space = vec![parse_search_space("a=1|2").unwrap(), parse_search_space("b=x| y|z").unwrap()];
        let mut settings = sample(&space, 10, 0);
        assert_eq!(settings.len(), 6);
        settings.sort();
        settings.dedup();
        assert_eq!(settings.len(), 6);
        assert!(settings.contains(&vec![("a".into(), "2".into()), ("b".into(), "y".into())]));
        assert!(parse_search_space("a").is_err() && parse_search_space("=1").is_err());
    }
}
