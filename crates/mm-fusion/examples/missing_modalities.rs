//! Three noisy sensors of one event, any of which may fail: what each operator makes of rows that lack some.
//! `cargo run --release -p mm-fusion --example missing_modalities`

use mm_core::{nn::Linear, prelude::*, seed::manual_seed};
use mm_fusion::{Fusion, FusionConfig, OperatorConfig};
use mm_train::{Optimizer, OptimizerConfig};

type Error = Box<dyn std::error::Error>;

/// Events of three classes; each sensor `[rows, 6]` sees the class through noise of its own and is absent from a share
/// of the rows.
fn events(rows: i64, absent: f64) -> Result<(FeatureSet, Tensor), Error> {
    let classes = Tensor::rand(&[rows], DType::F32, Device::Cpu)?.mul_scalar(3.0)?.to_dtype(DType::I64)?;
    let signal = classes.one_hot(3)?.to_dtype(DType::F32)?; // [rows, 3]
    let mut set = FeatureSet::new(rows);
    for (name, noise) in [("radar", 0.6), ("camera", 0.8), ("microphone", 1.0)] {
        let clutter = Tensor::randn(&[rows, 3], DType::F32, Device::Cpu)?;
        let seen = (&signal + noise * Tensor::randn(&[rows, 3], DType::F32, Device::Cpu)?)?;
        let present = Tensor::rand(&[rows], DType::F32, Device::Cpu)?.gt_scalar(absent)?;
        let features = Features::from_pooled(&Tensor::cat([seen, clutter], 1)?)?;
        set.insert(Modality::from(name), features, Some(present))?;
    }
    Ok((set, classes))
}

fn main() -> Result<(), Error> {
    let dims = ["camera", "microphone", "radar"].map(|name| (Modality::from(name), 6));
    println!("accuracy on held-out rows that lack no sensor, 30 % and 60 % of them:");
    for kind in ["concat", "gated", "weighted_sum", "bottleneck"] {
        manual_seed(1);
        let params = Params::new(Device::Cpu);
        let config = FusionConfig { operator: OperatorConfig::new(kind), dim: 16, ..FusionConfig::default() };
        let fusion = Fusion::new(&params.scope().pp("fusion"), &config, &dims)?;
        let head = Linear::new(&params.scope().pp("head"), 16, 3, true)?;
        let logits = |set: &FeatureSet, train: bool| -> Result<Tensor, Error> {
            Ok(head.forward(&fusion.fuse(set, train)?.features.values.mean_dim(&[1], false)?, train)?)
        };
        let mut optimizer = Optimizer::new(&OptimizerConfig { lr: 5e-3, ..OptimizerConfig::default() }, &params)?;
        for _ in 0..200 {
            let (set, classes) = events(64, 0.3)?;
            optimizer.zero_grad();
            logits(&set, true)?.cross_entropy(&classes, -100, 0.0)?.backward()?;
            optimizer.step(1.0, 1.0)?;
        }
        let accuracies = [0.0, 0.3, 0.6].map(|absent| -> Result<f64, Error> {
            let (set, classes) = events(2000, absent)?;
            let right = no_grad(|| logits(&set, false))?.argmax(1)?.eq(&classes)?;
            Ok(right.to_dtype(DType::F32)?.mean()?.to_f64()?)
        });
        let accuracies = accuracies.into_iter().collect::<Result<Vec<f64>, Error>>()?;
        println!("{kind:>14}: {accuracies:.3?}");
    }
    Ok(())
}
