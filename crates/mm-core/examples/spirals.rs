//! Trains a small network to separate two spirals, saves it and loads it again:
//! `cargo run --release -p mm-core --example spirals`

use mm_core::{AdamStep, Role, checkpoint, nn::Linear, prelude::*, seed::manual_seed};
use std::f64::consts::PI;

/// Three affine layers with tanh between them.
struct Network([Linear; 3]);

impl Network {
    fn new(scope: &Scope<'_>) -> Result<Self> {
        let layer = |name: &str, from, to| Linear::new(&scope.pp(name), from, to, true);
        Ok(Self([layer("first", 2, 32)?, layer("second", 32, 32)?, layer("third", 32, 2)?]))
    }

    /// Points `[rows, 2]` → logits `[rows, 2]`.
    fn forward(&self, points: &Tensor) -> Result<Tensor> {
        let [first, second, third] = &self.0;
        let hidden = first.forward(points, true)?.tanh()?;
        third.forward(&second.forward(&hidden, true)?.tanh()?, true)
    }

    fn accuracy(&self, points: &Tensor, classes: &Tensor) -> Result<f64> {
        let right = no_grad(|| self.forward(points))?.argmax(1)?.eq(classes)?;
        right.to_dtype(DType::F32)?.mean()?.to_f64()
    }
}

/// Points on two interleaved spirals `[rows, 2]`, with noise, and the spiral of each.
fn spirals(rows: i64) -> Result<(Tensor, Tensor)> {
    let turn = (Tensor::rand(&[rows], DType::F32, Device::Cpu)?.sqrt()? * (3.0 * PI))?;
    let classes = Tensor::new((0..rows).map(|row| row % 2).collect::<Vec<i64>>(), Device::Cpu)?;
    let angle = (&turn + PI * classes.to_dtype(DType::F32)?)?;
    let points = Tensor::stack([angle.cos()?, angle.sin()?], 1)?; // [rows, 2]
    let noise = (0.1 * Tensor::randn(&[rows, 2], DType::F32, Device::Cpu)?)?;
    Ok(((points * (turn.unsqueeze(1)? / PI) + noise)?, classes))
}

fn main() -> Result<()> {
    manual_seed(7);
    let params = Params::new(Device::Cpu);
    let network = Network::new(&params.scope())?;
    let (points, classes) = spirals(1000)?;
    let weights = params.named(&[Role::Trainable]);
    let means = weights.iter().map(|(_, w)| Ok((w.zeros_like()?, w.zeros_like()?))).collect::<Result<Vec<_>>>()?;
    for step in 1..=600 {
        let loss = network.forward(&points)?.cross_entropy(&classes, -100, 0.0)?;
        loss.backward()?;
        for ((_, weight), (mean, square)) in weights.iter().zip(&means) {
            if let Some(gradient) = weight.grad() {
                weight.adam_(&gradient, mean, square, &AdamStep::new(0.01, step))?;
            }
            weight.zero_grad();
        }
        if step % 200 == 0 {
            println!("step {step}: loss {:.4}", loss.to_f64()?);
        }
    }
    let (new_points, new_classes) = spirals(1000)?;
    let accuracy = network.accuracy(&new_points, &new_classes)?;

    let file = std::env::temp_dir().join(format!("mm-spirals-{}.safetensors", std::process::id()));
    checkpoint::save(&file, &params.export()?, &[])?;
    let loaded = Params::from_checkpoint(Checkpoint::open(&file)?, Device::Cpu, DType::F32, str::to_owned);
    let again = Network::new(&loaded.scope())?;
    loaded.finish()?;
    println!("accuracy on new points: {accuracy:.3}, loaded again {:.3}", again.accuracy(&new_points, &new_classes)?);
    std::fs::remove_file(&file).map_err(|e| mm_core::Error::file(file, e))
}
