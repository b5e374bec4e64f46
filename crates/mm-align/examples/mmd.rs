//! Two-sample test: images of animals against those of vehicles, and against other animals:
//! `cargo run --release -p mm-align --example mmd`

use mm_align::{discrepancy::mmd_test, kernel::median_heuristic_kernels};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let (images, kinds) = (data.get("images")?.to_dtype(DType::F64)?, data.get("kinds")?.to_vec::<i64>()?);
    // Class indices: 0 animals, 1 clothes, 2 food, … 15 vehicles.
    let half_of = |kind: i64, half: usize| -> mm_core::Result<Tensor> {
        let all = kinds.iter().enumerate().filter(|(_, k)| **k == kind).map(|(row, _)| row as i64);
        let rows: Vec<i64> = all.enumerate().filter(|(n, _)| n % 2 == half).map(|(_, row)| row).collect();
        images.index_select(0, &Tensor::from_slice(&rows)?)
    };
    let comparisons = [
        ("animals, vehicles", half_of(0, 0)?, half_of(15, 0)?),
        ("animals, other animals", half_of(0, 0)?, half_of(0, 1)?),
    ];
    for (name, a, b) in comparisons {
        let test = mmd_test(&a, &b, &median_heuristic_kernels(&a, &b)?, 1000, 7)?;
        println!("{name}: squared MMD {:.4}, p = {:.3}", test.statistic, test.p_value);
    }
    Ok(())
}
