//! Search spaces.

use crate::{Error, Result};
use mm_core::seed::Rng;
use mm_fusion::operators;
use std::collections::HashSet;

/// Keys of the config, each with the values that it may take, as they would be written there.
pub type SearchSpace = Vec<(String, Vec<String>)>;

/// Mixed into the seed, so that the settings are independent of other uses of it.
const SEED_STREAM: u64 = 0xF05E;

/// Spaces of up to this many settings are shuffled as a whole; of larger ones settings are sampled one by one.
const MAX_SHUFFLED: usize = 1_000_000;

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
    let sizes: Vec<usize> = space.iter().map(|(_, values)| values.len()).collect();
    let mut rng = Rng::new(&[seed, SEED_STREAM]);
    let count = sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
    let choices = match count {
        Some(count) if count <= MAX_SHUFFLED => shuffled(&sizes, count, num_trials, &mut rng),
        _ => sampled(&sizes, num_trials, &mut rng),
    };
    let setting = |choice: Vec<usize>| {
        space.iter().zip(choice).map(|((key, values), index)| (key.clone(), values[index].clone())).collect()
    };
    choices.into_iter().map(setting).collect()
}

/// The first of all `count` choices of an index below each size, in random order.
fn shuffled(sizes: &[usize], count: usize, num_trials: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let mut all: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut all);
    let choice = |mut number: usize| {
        let index = |size: &usize| {
            let index = number % size;
            number /= size;
            index
        };
        sizes.iter().map(index).collect()
    };
    all.into_iter().take(num_trials).map(choice).collect()
}

/// Random choices of an index below each size, without repetition; more than [`MAX_SHUFFLED`] of them exist, and no
/// more are sampled.
fn sampled(sizes: &[usize], num_trials: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
    let (mut seen, mut out) = (HashSet::new(), Vec::new());
    while out.len() < num_trials.min(MAX_SHUFFLED / 2) {
        let choice: Vec<usize> = sizes.iter().map(|size| rng.below(*size)).collect();
        if seen.insert(choice.clone()) {
            out.push(choice);
        }
    }
    out
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

    #[test]
    fn every_key_of_a_space_of_many_settings_varies() {
        // 4^15 settings, and more than a word can count.
        for keys in [15, 80] {
            let space: SearchSpace =
                (0..keys).map(|n| parse_search_space(&format!("key{n}=1|2|3|4")).unwrap()).collect();
            let settings = sample(&space, 64, 3);
            assert_eq!(settings.len(), 64);
            for key in 0..keys {
                let values: HashSet<&str> = settings.iter().map(|s| s[key].1.as_str()).collect();
                assert_eq!(values.len(), 4, "key {key} of {keys}");
            }
            let distinct: HashSet<_> = settings.iter().collect();
            assert_eq!(distinct.len(), 64);
        }
    }
}
