//! How the benches time a piece of work.

use std::time::Instant;

/// Turns a second: the median, after one turn that warms up.
pub fn measure<E: std::error::Error + 'static>(
    turns: usize,
    mut work: impl FnMut() -> Result<(), E>,
) -> Result<f64, Box<dyn std::error::Error>> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..turns {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(1.0 / times[turns / 2])
}
