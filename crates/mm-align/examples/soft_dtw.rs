//! Spoken words of different lengths and languages, compared by soft dynamic time warping: zebra, tiger, banana and guitar in
//! Belarusian and in Russian, by other speakers. `cargo run --release -p mm-align --example soft_dtw`

use mm_align::time_warp::soft_dtw_divergence;
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let heard = |word: &str, language: &str| -> mm_core::Result<Tensor> {
        data.get(&format!("{word}.{language}"))?.to_dtype(DType::F64)?.unsqueeze(0) // [1, frames, coefficients]
    };
    let words = ["zebra", "tiger", "banana", "guitar"];
    for spoken in words {
        let mut found = Vec::new();
        for other in words {
            let (x, y) = (heard(spoken, "be")?, heard(other, "ru")?);
            let length = (x.size(1)? + y.size(1)?) as f64;
            found.push((soft_dtw_divergence(&x, &y, 1.0)?.to_f64()? / length, other));
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let told: Vec<String> = found.iter().map(|(d, word)| format!("{word} {d:.2}")).collect();
        println!("Belarusian {spoken}, from the nearest Russian word on: {}", told.join(", "));
    }
    Ok(())
}
