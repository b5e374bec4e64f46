//! CLIPScore: the similarity of captions and images by a dual encoder.

use super::super::metric::{Metric, Metrics};
use crate::{Error, Result};
use mm_core::{DType, Modality, Source, Tensor};
use mm_repr::Pretrained;

/// `clip_score` (2.5 times the cosine of image and caption, at least 0) and `ref_clip_score` (the harmonic mean of that
/// and of the cosine with the nearest reference), the means over images. Source: *CLIPScore: A Reference-free
/// Evaluation Metric for Image Captioning* (Hessel et al., 2021, <https://arxiv.org/abs/2104.08718>).
///
/// # Errors
/// When the model does not embed images and texts in one space, or an image cannot be read.
pub fn clip_score(
    model: &Pretrained,
    images: &[Source],
    captions: &[String],
    references: &[Vec<String>],
) -> Result<Metrics> {
    if model.contrastive_head.is_none() {
        return Err(Error::Config(format!(
            "--clip: found a model of family {}, expected one that embeds images and texts in one space (CLIP, SigLIP)",
            model.family
        )));
    }
    let prompt = |t: &String| Source::Text(format!("A photo depicts {t}"));
    let embed = |modality: &Modality, sources: &[Source]| -> Result<Tensor> {
        Ok(model.embed(modality, sources, None)?.normalize()?)
    };
    let (mut sum, mut ref_sum) = (0.0, 0.0);
    for ((images, captions), references) in images.chunks(32).zip(captions.chunks(32)).zip(references.chunks(32)) {
        let image_embeddings = embed(&Modality::IMAGE, images)?;
        let text_embeddings = embed(&Modality::TEXT, &captions.iter().map(prompt).collect::<Vec<_>>())?;
        let cosines = image_embeddings.mul(&text_embeddings)?.sum_dim(&[1], false)?;
        let cosines: Vec<f64> = cosines.to_dtype(DType::F64)?.to_vec()?;
        for (row, (cosine, references)) in cosines.iter().zip(references).enumerate() {
            let score = 2.5 * cosine.max(0.0);
            sum += score;
            if references.is_empty() {
                continue;
            }
            let known = embed(&Modality::TEXT, &references.iter().map(prompt).collect::<Vec<_>>())?;
            let caption = text_embeddings.select(0, row as i64)?.unsqueeze(1)?;
            let nearest = known.matmul(&caption)?.max()?.to_f64()?.max(0.0);
            ref_sum += if score + nearest > 0.0 { 2.0 * score * nearest / (score + nearest) } else { 0.0 };
        }
    }
    let count = captions.len().max(1) as f64;
    let metrics = [("clip_score", sum / count), ("ref_clip_score", ref_sum / count)];
    Ok(metrics.into_iter().map(|(id, value)| Metric::new(id, value)).collect())
}
