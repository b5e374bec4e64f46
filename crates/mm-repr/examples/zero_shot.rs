//! Scores how well texts describe an image:
//! `cargo run --release -p mm-repr --example zero_shot -- openai/clip-vit-base-patch32 photo.jpg "a dog" "a cat"`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "openai/clip-vit-base-patch32".into());
    let image = Source::Path(arguments.next().unwrap_or_default().into());
    let texts: Vec<Source> = arguments.map(Source::Text).collect();
    let model = Pretrained::load(&locate(model.as_ref(), Path::new(".")))?;
    let image = model.embed(&Modality::IMAGE, &[image], None)?; // [1, dim]
    let texts = model.embed(&Modality::TEXT, &texts, None)?; // [texts, dim]
    let logit_scale = model.contrastive_head.map_or(1.0, |head| head.logit_scale);
    let probabilities = image.matmul(&texts.transpose(0, 1)?)?.mul_scalar(logit_scale)?.softmax(-1)?;
    println!("{:.3?}", probabilities.to_vec::<f32>()?);
    Ok(())
}
