//! Columns that number the rows: they predict the label of a sorted table, but carry no information about a new row.

/// Numbers without order are called row numbers when as many different ones would occur by chance in fewer of so many
/// columns (natural logarithm).
const LOG_CHANCE: f64 = -14.0;

/// Fewest rows in which numbers that rise by one are called row numbers.
const MIN_RUNNING: usize = 5;

/// Whether whole numbers, one for each row in order, number the rows: they rise by one, or they are all different and
/// lie so close together that measured values would repeat (a shuffled index, or that of a sample of a larger table).
pub(super) fn are_row_numbers(numbers: &[f64]) -> bool {
    if numbers.len() < MIN_RUNNING || numbers.iter().any(|v| v.fract() != 0.0) {
        return false;
    }
    if numbers.windows(2).all(|w| w[1] - w[0] == 1.0) {
        return true;
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.windows(2).any(|w| w[0] == w[1]) {
        return false;
    }
    let range = sorted[sorted.len() - 1] - sorted[0] + 1.0;
    // The chance that no value repeats among uniform draws from the range.
    let log_chance: f64 = (0..numbers.len()).map(|n| (-(n as f64) / range).ln_1p()).sum();
    log_chance < LOG_CHANCE
}

#[cfg(test)]
mod tests {
    use super::are_row_numbers;

    #[test]
    fn running_shuffled_and_sampled_row_numbers_are_found_and_measurements_are_not() {
        let shuffled = |n: usize, step: usize| (0..n).map(|i| (i * 7919 % n * step) as f64).collect::<Vec<_>>();
        assert!(are_row_numbers(&[3.0, 4.0, 5.0, 6.0, 7.0]));
        assert!(are_row_numbers(&shuffled(40, 1)));
        // Every second row of a larger table, and one of twenty.
        assert!(are_row_numbers(&shuffled(100, 2)) && are_row_numbers(&shuffled(1000, 20)));
        // Twelve different prices, repeated years, ages, thirty different numbers of a wide range.
        assert!(!are_row_numbers(&[12.0, 30.0, 7.0, 99.0, 41.0, 18.0, 3.0, 65.0, 24.0, 80.0, 55.0, 36.0]));
        assert!(!are_row_numbers(&[2000.0, 2001.0, 2001.0, 2002.0, 2003.0, 2004.0]));
        assert!(!are_row_numbers(&shuffled(30, 500)));
        assert!(!are_row_numbers(&[0.5, 1.5, 2.5, 3.5, 4.5, 5.5]));
    }
}
