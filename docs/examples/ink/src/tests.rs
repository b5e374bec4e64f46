//! What every modality has to hold: values are read as stated, a broken one is an error that says so, and a row's
//! features do not depend on its batch. That a model learns more than a baseline is in `tests/program.rs`.

use super::{InkProcessor, NUM_CHANNELS, Statistics, reader::rows_of, readings, register};
use mm_core::{
    BuildContext, DType, Device, Input, Params, ProcessContext, Processor, Registry, Source, Tensor, no_grad,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn value(value: Value) -> Source {
    Source::Value(value)
}

#[test]
fn the_pen_is_sampled_at_even_distances_in_a_unit_square() {
    // A stroke of 8 to the right, then one of 16 upwards: the longer side is 16, so a reading is 1 apart.
    let cross = value(json!([[[10, 5], [18, 5]], [[10, 5], [10, 9], [10, 21]]]));
    let found = readings(&cross).unwrap();
    assert_eq!(found.len(), 9 + 17);
    assert_eq!(found[0], [0.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(found[8], [0.5, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(found[9], [0.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(found[25], [0.0, 1.0, 0.0, 1.0, 0.0]);
    // A dot is one reading; the size of the writing does not matter.
    assert_eq!(readings(&value(json!([[[7, 7]]]))).unwrap(), [[0.0, 0.0, 0.0, 0.0, 1.0]]);
    let larger = value(json!([[[100, 50], [180, 50]], [[100, 50], [100, 210]]]));
    assert_eq!(readings(&larger).unwrap(), found);
    assert_eq!(readings(&value(json!("[[[7, 7]]]"))).unwrap().len(), 1);
}

#[test]
fn a_broken_value_is_an_error_that_says_what_was_found() {
    let processor = InkProcessor::new(Statistics { mean: vec![0.0; NUM_CHANNELS], deviation: vec![1.0; NUM_CHANNELS] });
    let error =
        |value: Value| processor.process(&Source::Value(value), &mut ProcessContext::eval()).unwrap_err().to_string();
    for broken in
        [json!("some words"), json!([]), json!([[]]), json!([[1, 2]]), json!([[[1, 2, 3]]]), json!([[[1, null]]])]
    {
        let found = error(broken.clone());
        assert!(found.contains("expected strokes: [[[x, y], …], …]"), "{broken}: {found}");
    }
    let zigzag: Vec<[f64; 2]> = (0..300).map(|n| [f64::from(n % 2), f64::from(n) / 300.0]).collect();
    assert!(error(json!([zigzag])).contains("too long"));
}

#[test]
fn a_row_has_the_same_features_alone_and_in_a_batch() {
    let mut registry = Registry::new();
    register(&mut registry);
    let values = [value(json!([[[0, 0], [4, 4]]])), value(json!([[[0, 0], [0, 9]], [[3, 3], [9, 0]]]))];
    let mut settings: toml::Value = toml::from_str("kind = \"ink\"\ndim = 6").unwrap();
    registry.complete(&mut settings, &values.each_ref()).unwrap();
    let params = Params::new(Device::Cpu);
    let context =
        BuildContext { scope: params.scope(), base_dir: PathBuf::new(), field: String::new(), registry: &registry };
    let built = registry.build(&settings, &context).unwrap();
    let random = |length: i64| Tensor::randn(&[1, length, 5], DType::F32, Device::Cpu).unwrap();
    let (short, long) = (random(4), random(9));
    let padded = Tensor::cat(&[&short.pad(&[0, 0, 0, 5], 7.0).unwrap(), &long], 0).unwrap();
    let mask: Vec<bool> = (0..18).map(|n| !(4..9).contains(&n)).collect();
    let mask = Tensor::from_vec(&mask, &[2, 9]).unwrap();
    let embed = |values: Tensor, mask: Option<Tensor>| {
        no_grad(|| built.encoder.embed(&Input { values, mask }, false)).unwrap().narrow(0, 0, 1).unwrap()
    };
    let (alone, batched) = (embed(short, None), embed(padded, Some(mask)));
    let difference = alone.sub(&batched).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn the_column_of_strokes_is_recognized_and_no_other() {
    let mut registry = Registry::new();
    register(&mut registry);
    let modality = |cell: Value| registry.modality_of_column("a", &[&cell]).map(ToOwned::to_owned);
    assert_eq!(modality(json!([[[0, 0], [4, 4]]])).as_deref(), Some("ink"));
    for other in [json!("a text"), json!(3), json!([1, 2]), json!([[1, 2], [3, 4]]), json!({"a": 1})] {
        assert_eq!(modality(other), None);
    }
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn characters_become_rows_some_without_a_modality() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // 江, 池, 油 and 沿 are of the radical water; 林 is the only one of its radical.
    for character in ["江", "池", "油", "沿", "林", "all"] {
        write(folder, &format!("package/{character}.json"), "{\"strokes\":[],\"medians\":[[[1,2],[3,4]]]}");
    }
    write(
        folder,
        "Unihan_Readings.txt",
        "# comment\nU+6C5F\tkDefinition\tlarge river\nU+6C60\tkDefinition\tpool, radical 85\nU+6C60\tkMandarin\tchí\n\
         U+6CB9\tkDefinition\toil\nU+6CBF\tkDefinition\tfollow a course\n",
    );
    write(
        folder,
        "Unihan_IRGSources.txt",
        "U+6C5F\tkRSUnicode\t85.3\nU+6C60\tkRSUnicode\t85.3\nU+6CB9\tkRSUnicode\t85'.5 30.1\nU+6CBF\tkRSUnicode\t85.5\n\
         U+6797\tkRSUnicode\t75.4\n",
    );
    let rows = rows_of(folder, 2).unwrap();
    let found: Vec<(&str, bool, Option<&str>, &str)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str();
            (text("character").unwrap(), row["ink"].is_array(), text("definition"), text("radical").unwrap())
        })
        .collect();
    // U+6C5F and U+6CBF leave the rest 3 by 4, U+6CB9 the rest 1.
    let expected = [
        ("江", true, None, "⽔"),
        ("池", true, Some("pool"), "⽔"),
        ("油", false, Some("oil"), "⽔"),
        ("沿", true, None, "⽔"),
    ];
    assert_eq!(found, expected);
    assert_eq!(rows[0]["ink"], json!([[[1, 2], [3, 4]]]));
    let error = rows_of(folder, 100).unwrap_err().to_string();
    assert!(error.contains("no character of a frequent radical"), "{error}");
    write(folder, "package/池.json", "{}");
    assert!(rows_of(folder, 2).unwrap_err().to_string().contains("found no list `medians`"));
}
