//! candle's part of `benches/peers.py`: items per second, the median after a warm-up run.
//!
//! `mm-candle FOLDER clip|resnet|bert BATCH`: the forward pass in float32 of images of 224×224 or texts of 48 tokens.
//! candle's ResNet expects timm's parameter names, so it runs with random weights of the same sizes.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder, VarMap};
use candle_transformers::models::{bert, clip, resnet};
use std::{path::Path, time::Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn measure(mut work: impl FnMut() -> candle_core::Result<Tensor>) -> Outcome<f64> {
    work()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(1.0 / times[2])
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind, batch] = arguments.as_slice() else {
        return Err("usage: mm-candle FOLDER clip|resnet|bert BATCH".into());
    };
    let (folder, batch, device): (_, usize, _) = (Path::new(folder), batch.parse()?, Device::Cpu);
    // SAFETY: the file is not modified while it is mapped.
    let weights =
        || unsafe { VarBuilder::from_mmaped_safetensors(&[folder.join("model.safetensors")], DType::F32, &device) };
    let images = Tensor::randn(0f32, 1.0, (batch, 3, 224, 224), &device)?;
    let rate = match kind.as_str() {
        "clip" => {
            let config = clip::vision_model::ClipVisionConfig::vit_base_patch32();
            let model = clip::vision_model::ClipVisionTransformer::new(weights()?.pp("vision_model"), &config)?;
            measure(|| model.forward(&images))?
        }
        "resnet" => {
            let random = VarMap::new();
            let model = resnet::resnet50(1000, VarBuilder::from_varmap(&random, DType::F32, &device))?;
            measure(|| model.forward(&images))?
        }
        "bert" => {
            let config: bert::Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
            let model = bert::BertModel::load(weights()?, &config)?;
            let ids: Vec<u32> = (0..batch as u32 * 48).map(|i| 1000 + i * 7919 % 19000).collect();
            let ids = Tensor::from_vec(ids, (batch, 48), &device)?;
            let (types, mask) = (ids.zeros_like()?, ids.ones_like()?);
            measure(|| model.forward(&ids, &types, Some(&mask)))?
        }
        other => return Err(format!("no model `{other}`").into()),
    };
    println!("{:.2}", rate * batch as f64);
    Ok(())
}
