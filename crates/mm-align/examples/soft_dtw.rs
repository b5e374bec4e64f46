//! Spoken words of different length and language compared by soft-DTW: zebra, tiger, banana and guitar in Belarusian
//! and in Russian, by different speakers. `cargo run --release -p mm-align --example soft_dtw`

use mm_align::dtw::soft_dtw_divergence;
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let recording = |word: &str, language: &str| -> mm_core::Result<Tensor> {
        data.get(&format!("{word}.{language}"))?.to_dtype(DType::F64)?.unsqueeze(0) // [1, frames, coefficients]
    };
    let words = ["zebra", "tiger", "banana", "guitar"];
    for query in words {
        let mut distances = Vec::new();
        for candidate in words {
            let (x, y) = (recording(query, "be")?, recording(candidate, "ru")?);
            let length = (x.size(1)? + y.size(1)?) as f64;
            distances.push((soft_dtw_divergence(&x, &y, 1.0)?.to_f64()? / length, candidate));
        }
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ranking: Vec<String> = distances.iter().map(|(d, word)| format!("{word} {d:.2}")).collect();
        println!("Belarusian {query}: {}", ranking.join(", "));
    }
    Ok(())
}
