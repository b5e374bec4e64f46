//! mm's part of `peers.py` for generative models: items per second, the median after a warm-up run.
//!
//! - `generate FOLDER caption IMAGE BEAMS TOKENS DTYPE`: tokens per second, the image decoded and encoded each time
//! - `generate FOLDER steps IMAGE BEAMS TOKENS DTYPE`: tokens per second, the image encoded before
//! - `generate FOLDER answer IMAGE QUESTIONS TOKENS DTYPE`: questions per second about one image, encoded once
//! - `generate FOLDER transcribe AUDIO 1 TOKENS DTYPE`: recordings per second

use mm_core::{DType, Device, Modality, Source};
use mm_reason::{
    EncodedMedia, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_repr::LoadOptions;
use std::path::Path;

mod measure;
use measure::measure;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    mm_core::retain_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind, file, count, tokens, dtype] = arguments.as_slice() else {
        return Err("usage: generate FOLDER caption|steps|answer|transcribe FILE COUNT TOKENS DTYPE".into());
    };
    mm_core::set_num_threads(std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2));
    let device: Device = std::env::var("DEVICE").map_or(Ok(Device::Cpu), |d| d.parse())?;
    let (count, tokens, dtype): (usize, usize, DType) = (count.parse()?, tokens.parse()?, dtype.parse()?);
    let model = Pipeline::load(Path::new(folder), LoadOptions { dtype, device, ..LoadOptions::default() })?;
    let source = [Source::Path(file.into())];
    let beams = if kind == "answer" || kind == "transcribe" { 1 } else { count };
    // A fixed number of tokens: random weights would end anywhere.
    let config = GenerationConfig {
        max_new_tokens: tokens,
        min_new_tokens: tokens,
        num_beams: beams,
        ..model.generation.clone()
    };
    let generate = |media: &EncodedMedia, request: Request<'_>| {
        model.generate(Some(media), request, &config, &LogitsProcessors::default(), &mut |_, _| {}).map(drop)
    };
    let encode_image = || model.encode_media(&Modality::IMAGE, &source);
    let rate = match kind.as_str() {
        "caption" => measure(5, || generate(&encode_image()?, Request::Caption(None)))? * tokens as f64,
        "steps" => {
            let media = encode_image()?;
            measure(5, || generate(&media, Request::Caption(None)))? * tokens as f64
        }
        "answer" => {
            let questions: Vec<String> = (0..count).map(|n| format!("w{} w{} w{} w{}", 10 + n, n, 7 * n, 99)).collect();
            let answer_all = || {
                let media = encode_image()?;
                questions.iter().try_for_each(|q| {
                    if model.can_generate() {
                        generate(&media, Request::Question(q))
                    } else {
                        model.answer(Some(&media), Request::Question(q), &[], &config).map(drop)
                    }
                })
            };
            measure(3, answer_all)? * count as f64
        }
        _ => {
            let encode_audio = || model.encode_media(&Modality::AUDIO, &source);
            measure(5, || generate(&encode_audio()?, Request::Transcribe { language: None, timestamps: false }))?
        }
    };
    println!("{rate:.3}");
    Ok(())
}
