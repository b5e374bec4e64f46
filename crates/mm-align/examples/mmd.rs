//! Do two samples come from one distribution? Pictures of animals against those of vehicles, and against each other:
//! `cargo run --release -p mm-align --example mmd`

use mm_align::discrepancy::{kernels_around_median, mmd_test};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let (pictures, kinds) = (data.get("pictures")?.to_dtype(DType::F64)?, data.get("kinds")?.to_vec::<i64>()?);
    // Kinds by their numbers: 0 animals, 1 clothes, 2 food, … 15 vehicles.
    let of = |kind: i64, half: usize| -> mm_core::Result<Tensor> {
        let all = kinds.iter().enumerate().filter(|(_, k)| **k == kind).map(|(row, _)| row as i64);
        let rows: Vec<i64> = all.enumerate().filter(|(n, _)| n % 2 == half).map(|(_, row)| row).collect();
        pictures.index_select(0, &Tensor::from_slice(&rows)?)
    };
    for (what, a, b) in [("animals, vehicles", of(0, 0)?, of(15, 0)?), ("animals, other animals", of(0, 0)?, of(0, 1)?)]
    {
        let test = mmd_test(&a, &b, &kernels_around_median(&a, &b)?, 1000, 7)?;
        println!("{what}: squared discrepancy {:.4}, p = {:.3}", test.statistic, test.p_value);
    }
    Ok(())
}
