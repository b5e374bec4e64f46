//! Random inputs against Pillow, torchvision, torchaudio and transformers: `cargo xtask parity random --seed N` runs
//! `xtask/parity/random_inputs.py` and this test, which is skipped without it; and the frames of videos that
//! `Qwen2VLVideoProcessor` samples, in a fixture.
#![allow(missing_docs)]

use image::RgbImage;
use mm_core::{Checkpoint, Tensor};
use mm_data::{
    decode::FrameSampling,
    transform::{ImageTransform, Interpolation, Mel, MelConfig, Resize},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn read(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    Ok(serde_json::from_value(value.clone())?)
}

fn to_image(tensor: &Tensor) -> Result<RgbImage> {
    let shape = tensor.shape();
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, tensor.to_vec()?).ok_or_else(|| "not an image".into())
}

fn max_difference(found: &Tensor, expected: &Tensor) -> Result<f32> {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (found.to_vec::<f32>()?, expected.to_vec::<f32>()?);
    Ok(found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

#[test]
fn random_inputs_give_what_the_reference_libraries_give() -> Result<()> {
    let Some(folder) = std::env::var_os("MM_PARITY_DATA").map(PathBuf::from) else {
        println!("skipped: MM_PARITY_DATA names no folder; `cargo xtask parity random` makes one");
        return Ok(());
    };
    let (settings, arrays) = (read(&folder.join("data.json"))?, Checkpoint::open(folder.join("data.safetensors"))?);
    println!("seed {}", settings["seed"]);
    let array = |name: &Value, end: &str| arrays.get(&format!("{}.{end}", name.as_str().unwrap_or_default()));
    let mut failures = Vec::new();
    for case in rows(&settings["resize"]) {
        let expected = array(&case["name"], "out")?;
        let transform = ImageTransform {
            resize: Some(Resize::Exact(expected.shape()[0] as u32, expected.shape()[1] as u32)),
            interpolation: parse::<Interpolation>(&case["interpolation"])?,
            pillow_exact: true,
            crop: None,
            mean: [0.0; 3],
            std: [1.0; 3],
            ..ImageTransform::default()
        };
        let found = transform.apply(&to_image(&array(&case["name"], "in")?)?)?;
        let found = found.permute(&[1, 2, 0])?.mul_scalar(255.0)?;
        let difference = max_difference(&found.contiguous()?, &expected.to_dtype(mm_core::DType::F32)?)?;
        failures.extend((difference > 1e-3).then(|| format!("{case}: {difference}/255")));
    }
    for case in rows(&settings["transform"]) {
        let size = parse::<Vec<u32>>(&case["crop"])?;
        let std: [f32; 3] = parse(&case["std"])?;
        let transform = ImageTransform {
            resize: Some(Resize::ShortestEdge(parse(&case["edge"])?)),
            interpolation: Interpolation::Bicubic,
            crop: Some((size[0], size[1])),
            mean: parse(&case["mean"])?,
            std,
            ..ImageTransform::default()
        };
        let found = transform.apply(&to_image(&array(&case["name"], "in")?)?)?;
        let difference = max_difference(&found, &array(&case["name"], "out")?)?;
        // 1/255 of a pixel value, divided by the smallest standard deviation.
        let allowed = 1.01 / 255.0 / std.iter().copied().fold(f32::MAX, f32::min);
        failures.extend((difference > allowed).then(|| format!("{case}: {difference}, at most {allowed}")));
    }
    for case in rows(&settings["mel"]) {
        let config = &case["config"];
        let config = match (config["whisper"].as_u64(), config["kaldi"].as_array()) {
            (Some(bands), _) => MelConfig::whisper(bands as usize),
            (None, Some(kaldi)) => MelConfig::kaldi(parse(&kaldi[0])?, parse(&kaldi[1])?),
            (None, None) => parse(config)?,
        };
        let expected = array(&case["name"], "out")?;
        let found = Mel::new(config)?.apply(&array(&case["name"], "in")?.to_vec::<f32>()?)?;
        let largest = expected.abs()?.max()?.to_f64()? as f32;
        let difference = max_difference(&found, &expected)? / largest;
        failures.extend((difference > 1e-4).then(|| format!("{case}: {difference} of the largest value")));
    }
    for case in rows(&settings["frames"]) {
        failures.extend(check_frames(case)?);
    }
    assert!(failures.is_empty(), "seed {}:\n{}", settings["seed"], failures.join("\n"));
    Ok(())
}

/// The difference to the frames that transformers samples, if there is one.
fn check_frames(case: &Value) -> Result<Option<String>> {
    let sampling = FrameSampling::PerSecond {
        fps: parse(&case["fps"])?,
        min_frames: parse(&case["min_frames"])?,
        max_frames: parse(&case["max_frames"])?,
        multiple_of: parse(&case["temporal_patch_size"])?,
    };
    let found = sampling.indices(parse(&case["total"])?, parse(&case["frame_rate"])?);
    Ok((json!(found) != case["indices"]).then(|| format!("{case}: found {found:?}")))
}

#[test]
fn frames_are_those_that_transformers_samples() -> Result<()> {
    let cases = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frame_sampling.json"))?;
    assert!(rows(&cases).len() >= 40);
    for case in rows(&cases) {
        assert_eq!(check_frames(case)?, None);
    }
    Ok(())
}
