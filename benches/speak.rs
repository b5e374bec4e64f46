//! What a checkpoint that speaks does in a second, for `peers.py`: the median of the turns after one that does not count.
//!
//! - `speak FOLDER caption PICTURE BEAMS TOKENS DTYPE`: tokens a second, the picture's file read and encoded each time
//! - `speak FOLDER steps PICTURE BEAMS TOKENS DTYPE`: tokens a second, the picture seen before
//! - `speak FOLDER answer PICTURE QUESTIONS TOKENS DTYPE`: questions a second about one picture, read and encoded once
//! - `speak FOLDER transcribe SOUND 1 TOKENS DTYPE`: sounds a second

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
        return Err("usage: speak FOLDER caption|steps|answer|transcribe FILE COUNT TOKENS DTYPE".into());
    };
    mm_core::set_num_threads(std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2));
    let device: Device = std::env::var("DEVICE").map_or(Ok(Device::Cpu), |d| d.parse())?;
    let (count, tokens, dtype): (usize, usize, DType) = (count.parse()?, tokens.parse()?, dtype.parse()?);
    let model = Pipeline::load(Path::new(folder), LoadOptions { dtype, device, ..LoadOptions::default() })?;
    let source = [Source::Path(file.into())];
    let beams = if kind == "answer" || kind == "transcribe" { 1 } else { count };
    // No end before so many: random weights would end anywhere.
    let config = GenerationConfig {
        max_new_tokens: tokens,
        min_new_tokens: tokens,
        num_beams: beams,
        ..model.generation.clone()
    };
    let say = |seen: &EncodedMedia, asked: Request<'_>| {
        model.generate(Some(seen), asked, &config, &LogitsProcessors::default(), &mut |_, _| {}).map(drop)
    };
    let look = || model.encode_media(&Modality::IMAGE, &source);
    let rate = match kind.as_str() {
        "caption" => measure(5, || say(&look()?, Request::Caption(None)))? * tokens as f64,
        "steps" => {
            let seen = look()?;
            measure(5, || say(&seen, Request::Caption(None)))? * tokens as f64
        }
        "answer" => {
            let questions: Vec<String> = (0..count).map(|n| format!("w{} w{} w{} w{}", 10 + n, n, 7 * n, 99)).collect();
            let all = || {
                let seen = look()?;
                questions.iter().try_for_each(|q| {
                    if model.can_generate() {
                        say(&seen, Request::Question(q))
                    } else {
                        model.answer(Some(&seen), Request::Question(q), &[], &config).map(drop)
                    }
                })
            };
            measure(3, all)? * count as f64
        }
        _ => {
            let seen = || model.encode_media(&Modality::AUDIO, &source);
            measure(5, || say(&seen()?, Request::Transcribe { language: None, timestamps: false }))?
        }
    };
    println!("{rate:.3}");
    Ok(())
}
