//! Encoders that are made of others: several layers of one, and the frames of a video.

mod common;

use common::fixtures;
use mm_core::{
    BuildContext, BuiltEncoder, Device, Features, Input, Modality, Params, ProcessContext, Registry, Source, Tensor,
};
use std::path::Path;

fn build(settings: &str) -> mm_core::Result<BuiltEncoder> {
    let mut registry = Registry::new();
    mm_repr::register(&mut registry);
    let params = Params::new(Device::Cpu);
    let context = BuildContext {
        scope: params.scope(),
        base_dir: fixtures(""),
        field: "encoder".to_owned(),
        registry: &registry,
    };
    registry.build(&toml::from_str(settings).unwrap(), &context)
}

fn features(encoder: &BuiltEncoder, source: &Source) -> Features {
    let sample = encoder.processor.process(source, &mut ProcessContext::eval()).unwrap();
    encoder.encoder.encode(&Input { values: sample.unsqueeze(0).unwrap(), mask: None }, false).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let values = a.sub(b).unwrap().to_vec::<f32>().unwrap();
    values.into_iter().map(f32::abs).fold(0.0, f32::max)
}

#[test]
fn layers_of_an_encoder_are_concatenated_in_the_order_that_is_given() {
    let text = Source::Text("the quick brown fox".into());
    let of = |layers: &str| {
        features(&build(&format!("kind = \"pretrained\"\npath = \"bert-plain\"\nlayers = {layers}")).unwrap(), &text)
    };
    let (first, last, both) = (of("[1]"), of("[2]"), of("[2, 1]"));
    assert!(difference(&first.values, &last.values) > 1e-2, "layers differ");
    let expected = Tensor::cat(&[&last.values, &first.values], -1).unwrap();
    assert_eq!(difference(&both.values, &expected), 0.0);
    // The last is what the encoder returns.
    let plain = features(&build("kind = \"pretrained\"\npath = \"bert-plain\"").unwrap(), &text);
    assert!(difference(&plain.values, &last.values) < 1e-6);
    let beyond = build("kind = \"pretrained\"\npath = \"bert-plain\"\nlayers = [3]").unwrap();
    let sample = beyond.processor.process(&text, &mut ProcessContext::eval()).unwrap();
    let input = Input { values: sample.unsqueeze(0).unwrap(), mask: None };
    let error = beyond.encoder.encode(&input, false).err().unwrap().to_string();
    assert!(error.contains("encoder.layers: found 3, expected 0 to 2"), "{error}");
}

#[test]
fn frames_of_a_video_are_embedded_one_by_one() {
    if mm_data::decode::ffmpeg().is_err() {
        println!("skipped: no ffmpeg");
        return;
    }
    let video = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-reason/tests/fixtures/inputs/frames.mkv");
    let image = "{ kind = \"pretrained\", path = \"families/vit-classifier\" }";
    let settings = |count: usize| format!("kind = \"frames\"\nnum_frames = {count}\nencoder = {image}");
    let frames = build(&settings(3)).unwrap();
    assert_eq!(frames.encoder.modality(), Modality::VIDEO);
    let found = features(&frames, &Source::Path(video.clone())).values;
    assert_eq!(found.shape(), [1, 3, frames.encoder.dim()]);
    // Each is what the image encoder makes of the frame as an image.
    let encoder = build("kind = \"pretrained\"\npath = \"families/vit-classifier\"").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let images = mm_data::decode::sample_frames(&video, 3, &mm_data::decode::ImageLimits::default()).unwrap();
    for (index, frame) in images.iter().enumerate() {
        let path = folder.path().join("frame.png");
        frame.save(&path).unwrap();
        let sample = encoder.processor.process(&Source::Path(path), &mut ProcessContext::eval()).unwrap();
        let input = Input { values: sample.unsqueeze(0).unwrap(), mask: None };
        let expected = encoder.encoder.embed(&input, false).unwrap();
        assert!(difference(&found.select(1, index as i64).unwrap(), &expected) < 1e-5, "frame {index}");
    }
    for (wrong, expected) in [
        (settings(0), "num_frames"),
        (settings(65), "num_frames"),
        (
            "kind = \"frames\"\nnum_frames = 2\nencoder = { kind = \"pretrained\", path = \"bert-plain\" }".into(),
            "image",
        ),
    ] {
        let error = build(&wrong).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
