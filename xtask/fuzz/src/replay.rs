//! The corpus inputs and seeded random changes of them, as an ordinary test.

use crate::{TARGETS, Target, bytes::temporary, run};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Seconds after which one input counts as endless.
const MAX_SECONDS: u64 = 20;
/// Maximum length of a changed input, as `cargo xtask fuzz` sets it.
const MAX_LENGTH: usize = 1 << 16;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// The corpus inputs of a target, sorted by name.
fn corpus_inputs(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect()
}

/// Runs a target on its corpus inputs, then on changes of them for `MM_FUZZ_SECONDS` seconds (2 by default), of which
/// `MM_FUZZ_SEED` (0 by default) is the seed.
pub(crate) fn check(name: &str) {
    let target = *TARGETS.iter().find(|t| t.name == name).unwrap();
    let (seconds, seed) = (setting("MM_FUZZ_SECONDS", 2), setting("MM_FUZZ_SEED", 0));
    let inputs = corpus_inputs(name);
    assert!(!inputs.is_empty(), "corpus/{name} is empty");
    // An abort leaves this file behind, which is the input that caused it.
    let file = temporary().join(format!("mm-fuzz-{name}-{}.input", std::process::id()));
    println!("{name}: seed {seed}; the input that is run is in {}", file.display());
    let watch = Watch::start(name, file.clone());
    let runner = Runner { target, file: &file, watch: &watch };
    for (path, input) in &inputs {
        runner.run(input, &path.display().to_string());
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, input)| input).collect();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let input = change(&inputs, &mut rng);
        runner.run(&input, &format!("change {count} of seed {seed}"));
        count += 1;
    }
    println!("{name}: {} corpus inputs and {count} changes of them in {seconds} s", inputs.len());
    std::fs::remove_file(file).unwrap();
}

struct Runner<'a> {
    target: Target,
    file: &'a Path,
    watch: &'a Watch,
}

impl Runner<'_> {
    fn run(&self, input: &[u8], origin: &str) {
        std::fs::write(self.file, input).unwrap();
        self.watch.begin();
        if let Err(text) = run(self.target, input) {
            // The hook of `run` prints nothing.
            println!("{}: {origin}, in {}:\n{text}", self.target.name, self.file.display());
            panic!("a finding");
        }
    }
}

/// Ends the process when one input takes too long.
struct Watch {
    started: Arc<Mutex<Instant>>,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    fn start(name: &str, file: PathBuf) -> Self {
        let watch = Self { started: Arc::new(Mutex::new(Instant::now())), is_over: Arc::default() };
        let (started, is_over, name) = (watch.started.clone(), watch.is_over.clone(), name.to_owned());
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                let elapsed = started.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                if elapsed > Duration::from_secs(MAX_SECONDS) {
                    println!("{name}: {} takes more than {MAX_SECONDS} seconds", file.display());
                    std::process::abort();
                }
            }
        });
        watch
    }

    fn begin(&self) {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// A few random changes of one of the inputs.
fn change(inputs: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut out = inputs.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=out.len());
        match rng.random_range(0..8) {
            0 => out.truncate(at),
            1 => {
                // A part of another input.
                let other = inputs.choose(rng).map_or(&[][..], Vec::as_slice);
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len());
                out.splice(at..at, other[from..to].iter().copied());
            }
            2 => {
                let to = (at + rng.random_range(1..64)).min(out.len());
                out.drain(at..to);
            }
            3 => {
                let to = (at + rng.random_range(1..64)).min(out.len());
                let part = out[at..to].to_vec();
                out.splice(at..at, part);
            }
            // Lengths and counts: small, largest, and signed ones, of 2, 4 and 8 bytes in both orders.
            4 => {
                let values = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
                let mut bytes = values.choose(rng).copied().unwrap_or(0).to_le_bytes().to_vec();
                bytes.truncate(*[2, 4, 8].choose(rng).unwrap_or(&4));
                if rng.random() {
                    bytes.reverse();
                }
                out.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = from);
            }
            // Digits in text.
            5 => {
                if let Some(digit) = out.iter_mut().skip(at).find(|b| b.is_ascii_digit()) {
                    *digit = rng.random_range(b'0'..=b'9');
                }
            }
            6 => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = rng.random();
                }
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
        out.truncate(MAX_LENGTH);
    }
    out
}
