//! mm-align's part of `align.py`: seconds per workload as one JSON object, best of three runs. With three arguments
//! (layers, tokens, repeats) it prints only the time ratio of the gradient-cached step to plain steps for towers of
//! that size.

use mm_align::{
    contrastive::{InfoNceOptions, Similarity, Temperature, grad_cache_backward, info_nce},
    correlation::cca,
    discrepancy::{MmdEstimator, mmd},
    distance::squared_distances,
    dtw::soft_dtw,
    kernel::Kernel,
    transport::{Masses, SinkhornConfig, sinkhorn},
};
use mm_core::{
    DType, Device, Params, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, ForwardArgs, MlpConfig, Transformer, TransformerConfig},
    no_grad,
};
use mm_train::{Optimizer, OptimizerConfig};
use std::{collections::BTreeMap, time::Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn best(times: usize, mut body: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut fastest = f64::INFINITY;
    for _ in 0..times {
        let start = Instant::now();
        body()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    Ok(fastest)
}

fn main() -> Outcome<()> {
    mm_core::retain_freed_memory();
    mm_core::set_num_threads(2);
    let sizes: Vec<i64> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    if let [layers, tokens, repeats] = sizes[..] {
        println!("{:.3}", cached_over_plain(layers, tokens, repeats.max(1) as usize)?);
        return Ok(());
    }
    let randn = |shape: &[i64], dtype: DType| Tensor::randn(shape, dtype, Device::Cpu);
    let mut out: BTreeMap<&str, f64> = BTreeMap::new();
    let pair = |rows: i64, dim: i64| -> Outcome<(Tensor, Tensor)> {
        let hidden = randn(&[rows, 64], DType::F64)?;
        let set = || -> Outcome<Tensor> {
            Ok(hidden.matmul(&randn(&[64, dim], DType::F64)?)?.add(&randn(&[rows, dim], DType::F64)?)?)
        };
        Ok((set()?, set()?))
    };
    {
        let (a, b) = pair(20_000, 128)?;
        out.insert("cca 20,000 x 128, 4 dimensions", best(3, || Ok(cca(&a, &b, Some(4), [0.0; 2]).map(drop)?))?);
    }
    {
        let (a, b) = pair(100_000, 512)?;
        out.insert("cca 100,000 x 512, 16 dimensions", best(3, || Ok(cca(&a, &b, Some(16), [0.0; 2]).map(drop)?))?);
        let products = best(3, || {
            let product = |x: &Tensor, y: &Tensor| x.transpose(0, 1)?.matmul(y).map(drop);
            product(&a, &a)?;
            product(&b, &b)?;
            Ok(product(&a, &b)?)
        })?;
        out.insert("its three covariance products alone", products);
    }
    let cost = Tensor::rand(&[2000, 2000], DType::F64, Device::Cpu)?;
    let settings = SinkhornConfig { epsilon: 0.05, max_iterations: 1000, tolerance: 1e-6, marginal_relaxation: None };
    out.insert("sinkhorn 2,000 x 2,000", best(3, || Ok(sinkhorn(&cost, Masses::default(), settings).map(drop)?))?);
    let x = randn(&[32, 500, 8], DType::F32)?.set_requires_grad(true)?;
    let y = randn(&[32, 500, 8], DType::F32)?;
    let soft = best(3, || {
        x.zero_grad();
        Ok(soft_dtw(&squared_distances(&x, &y)?, 0.5)?.sum()?.backward()?)
    })?;
    out.insert("soft-DTW 32 pairs of 500, with gradient", soft);
    let (p, q) = (randn(&[10_000, 64], DType::F32)?, randn(&[10_000, 64], DType::F32)?);
    let kernels = [Kernel::Gaussian { bandwidth: 8.0 }];
    let discrepancy = best(1, || Ok(no_grad(|| mmd(&p, &q, &kernels, MmdEstimator::Unbiased)).map(drop)?))?;
    out.insert("MMD of 10,000 and 10,000 rows of 64, in blocks", discrepancy);
    let name = "gradient-cached step of 4,096 over 16 plain steps of 256 (ratio)";
    out.insert(name, cached_over_plain(2, 12, 5)?);
    println!("{}", serde_json::to_string(&out)?);
    Ok(())
}

/// Time of a gradient-cached step of 4,096 pairs in chunks of 256, relative to the sixteen plain steps of 256 that
/// process as many pairs; every step includes its AdamW update. Two transformers of all-MiniLM's width. Both variants
/// alternate, so that other load on the machine affects both; the median of `repeats` ratios.
fn cached_over_plain(layers: i64, tokens: i64, repeats: usize) -> Outcome<f64> {
    let params = Params::new(Device::Cpu);
    let block = BlockConfig::post_norm(AttentionConfig::new(384, 12), MlpConfig::new(1536, Activation::Gelu));
    let config = TransformerConfig { final_norm: true, ..TransformerConfig::new(layers, block) };
    let [left, right] = ["a", "b"].map(|name| Transformer::new(&params.scope().pp(name), &config));
    let (left, right) = (left?, right?);
    let data = Tensor::randn(&[4096, tokens, 384], DType::F32, Device::Cpu)?;
    let scale = Tensor::from_slice(&[10f32])?;
    let chunk = |c: usize| -> mm_align::Result<(Tensor, Tensor)> {
        let x = data.narrow(0, 256 * c as i64, 256)?;
        let one = |t: &Transformer, x: &Tensor| {
            t.forward(x, ForwardArgs { train: true, ..ForwardArgs::default() })?.mean_dim(&[1], false)
        };
        Ok((one(&left, &x)?, one(&right, &x.mul_scalar(0.9)?)?))
    };
    let loss = |a: &Tensor, b: &Tensor| {
        info_nce(&Similarity::cosine(a, b)?, Temperature::Inverse(&scale), InfoNceOptions::default())
    };
    // Warm-up: memory is reused once allocated.
    grad_cache_backward(2, chunk, loss)?;
    let mut optimizer = Optimizer::new(&OptimizerConfig { lr: 1e-5, ..OptimizerConfig::default() }, &params)?;
    let mut ratios = Vec::new();
    for _ in 0..repeats {
        let plain = best(1, || {
            for c in 0..16 {
                optimizer.zero_grad();
                let (a, b) = chunk(c)?;
                loss(&a, &b)?.backward()?;
                optimizer.step(1.0, 1.0)?;
            }
            Ok(())
        })?;
        let cached = best(1, || {
            optimizer.zero_grad();
            grad_cache_backward(16, chunk, loss)?;
            Ok(optimizer.step(1.0, 1.0)?)
        })?;
        eprintln!("{layers} blocks, {tokens} tokens: {plain:.1} s and {cached:.1} s");
        ratios.push(cached / plain);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[repeats / 2])
}
