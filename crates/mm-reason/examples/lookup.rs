//! A reasoning network learns a table look-up: the question names a shape, nine regions each hold a shape and a color,
//! and the answer is the color of that shape. `cargo run --release -p mm-reason --example lookup`

use mm_core::{ReasonerOutput, nn::Linear, prelude::*, seed::manual_seed};
use mm_reason::reasoning::{NetworkConfig, ReasoningConfig, build};
use mm_train::{Optimizer, OptimizerConfig};

type Error = Box<dyn std::error::Error>;

const SHAPES: i64 = 9;
const COLORS: i64 = 4;

/// Questions `[rows, 1, SHAPES]` about images `[rows, SHAPES, SHAPES + COLORS]`; the answers, and the region of each.
fn questions(rows: i64) -> Result<(FeatureSet, Tensor, Tensor), Error> {
    let order = Tensor::rand(&[rows, SHAPES], DType::F32, Device::Cpu)?.argsort(1, false)?; // the shape in each region
    let colors = Tensor::rand(&[rows, SHAPES], DType::F32, Device::Cpu)?.mul_scalar(COLORS as f64)?;
    let colors = colors.to_dtype(DType::I64)?;
    let one_hot = |x: &Tensor, count| x.one_hot(count)?.to_dtype(DType::F32);
    let image = Tensor::cat([one_hot(&order, SHAPES)?, one_hot(&colors, COLORS)?], 2)?;
    let region = Tensor::rand(&[rows, 1], DType::F32, Device::Cpu)?.mul_scalar(SHAPES as f64)?.to_dtype(DType::I64)?;
    let question = one_hot(&order.gather(1, &region)?, SHAPES)?; // [rows, 1, SHAPES]
    let mut set = FeatureSet::new(rows);
    set.insert(Modality::TEXT, Features::new(question, None)?, None)?;
    set.insert(Modality::IMAGE, Features::new(image, None)?, None)?;
    Ok((set, colors.gather(1, &region)?.squeeze(1)?, region.squeeze(1)?))
}

fn main() -> Result<(), Error> {
    manual_seed(2);
    let params = Params::new(Device::Cpu);
    let network = NetworkConfig::new("san");
    let config = ReasoningConfig { network, hidden_dim: 32, dropout: 0.0, ..ReasoningConfig::default() };
    let dims = [(Modality::TEXT, SHAPES), (Modality::IMAGE, SHAPES + COLORS)];
    let network = build(&params.scope().pp("network"), &config, &dims)?;
    let head = Linear::new(&params.scope().pp("head"), 32, COLORS, true)?;
    let answer = |set: &FeatureSet, train: bool| -> Result<(Tensor, ReasonerOutput), Error> {
        let output = network.reason(set, train)?;
        Ok((head.forward(&output.features.values.select(1, 0)?, train)?, output))
    };
    let mut optimizer = Optimizer::new(&OptimizerConfig { lr: 5e-3, ..OptimizerConfig::default() }, &params)?;
    for step in 1..=600 {
        let (set, colors, _) = questions(64)?;
        optimizer.zero_grad();
        let loss = answer(&set, true)?.0.cross_entropy(&colors, -100, 0.0)?;
        loss.backward()?;
        optimizer.step(1.0, 1.0)?;
        if step % 200 == 0 {
            println!("step {step}: loss {:.3}", loss.to_f64()?);
        }
    }
    let (set, colors, regions) = questions(1000)?;
    let share = |right: Tensor| right.to_dtype(DType::F32)?.mean()?.to_f64();
    let (logits, output) = no_grad(|| answer(&set, false))?;
    println!("accuracy {:.3} (chance 0.250)", share(logits.argmax(1)?.eq(&colors)?)?);
    let looked_at = output.attention.last().ok_or("no attention")?.weights.argmax(1)?;
    println!("the region looked at most is the one asked about: {:.3}", share(looked_at.eq(&regions)?)?);
    Ok(())
}
