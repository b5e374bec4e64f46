//! Training the last blocks of encoders whose other weights are frozen.

mod common;

use common::{checkpoint_only, fixtures};
use mm_core::{Input, Modality, ProcessContext, Role, Source, Tensor};
use mm_repr::{LoadOptions, Pretrained};

/// A second backward pass works, and the last blocks have gradients in it. Weights that derive from parameters were
/// computed at the build before, so that the second pass went through a graph that was freed.
#[test]
fn the_last_block_of_speech_encoders_is_trained_for_several_steps() {
    for name in ["wav2vec2-group", "wav2vec2-layer-stable", "hubert-base", "hubert-batch-norm"] {
        let folder = checkpoint_only(&fixtures("families").join(name));
        let options = LoadOptions { trainable_layers: Some(1), ..LoadOptions::default() };
        let model = Pretrained::load_with(folder.path(), options).unwrap();
        let tower = model.tower(&Modality::AUDIO).unwrap();
        let source = Source::Path(fixtures("families/inputs/short16.wav"));
        let sample = tower.processor.process(&source, &mut ProcessContext::eval()).unwrap();
        let input = Input { values: sample.unsqueeze(0).unwrap(), mask: None };
        let trainable = model.params.named(&[Role::Trainable]);
        assert!(!trainable.is_empty() && trainable.iter().all(|(n, _)| n.contains("layers.1.")), "{name}");
        for step in 0..2 {
            tower.encoder.embed(&input, true).unwrap().pow(2.0).unwrap().sum().unwrap().backward().unwrap();
            let reached = |t: &Tensor| t.grad().is_some();
            assert!(trainable.iter().any(|(_, t)| reached(t)), "{name}: step {step}");
        }
    }
}
