//! Fine-tuning trains what the forward pass uses, and what is saved is what was trained.

use mm_core::{Modality, Role, Source, Tensor, no_grad};
use mm_reason::{Pipeline, TrainBatch, TrainingOptions};
use mm_repr::LoadOptions;
use std::path::PathBuf;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// All parameters of ViT with GPT-2 are trained for two steps: the class token has a gradient in each, and the outputs
/// change with it.
#[test]
fn the_class_token_of_a_vision_encoder_decoder_is_trained() {
    let folder = fixtures().join("vision-encoder-decoder-vit-gpt2");
    let pipeline =
        Pipeline::load_for_training(&folder, LoadOptions::default(), TrainingOptions::default()).unwrap().pipeline;
    let source = Source::Path(fixtures().join("inputs/wide.png"));
    let processor = pipeline.processor(&Modality::IMAGE).unwrap();
    let pixels = processor.process(&source, &mut mm_core::ProcessContext::eval()).unwrap().unsqueeze(0).unwrap();
    let ids = Tensor::from_vec(&[0i64, 3, 4], &[1, 3]).unwrap();
    let forward = || {
        let batch = TrainBatch {
            modality: &Modality::IMAGE,
            values: &pixels,
            question: None,
            decoder_input_ids: Some(&ids),
            train: true,
        };
        pipeline.forward(&batch).unwrap()
    };
    let trainable = pipeline.params.named(&[Role::Trainable]);
    let (name, token) = trainable.iter().find(|(name, _)| name.ends_with("cls_token")).unwrap();
    for step in 0..2 {
        forward().sum().unwrap().backward().unwrap();
        let gradient = token.grad().map(|g| g.abs().unwrap().max().unwrap().to_f64().unwrap());
        assert!(gradient.is_some_and(|g| g > 0.0), "step {step}: {name} has gradient {gradient:?}");
    }
    let before = no_grad(forward);
    // Adding a constant would change nothing: the norm after it removes the mean.
    no_grad(|| token.copy_(&token.mul_scalar(-2.0)?)).unwrap();
    let change = no_grad(|| forward().sub(&before)?.abs()?.max()?.to_f64()).unwrap();
    assert!(change > 1e-4, "the outputs do not follow the class token: {change}");
}
