//! Timing of the benchmarks.

use std::time::Instant;

/// Runs per second: the median of `runs`, after a warm-up run.
pub fn measure<E: std::error::Error + 'static>(
    runs: usize,
    mut work: impl FnMut() -> Result<(), E>,
) -> Result<f64, Box<dyn std::error::Error>> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(1.0 / times[runs / 2])
}
