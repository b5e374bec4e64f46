use super::*;
use mm_core::{Pooling, ProcessContext, Processor, Source, Tensor};
use mm_data::{ColumnInference, ManifestConfig, ManifestPieces, PieceSize};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

/// A text as its number of bytes and their sum.
struct Bytes;

impl Processor for Bytes {
    fn process(&self, source: &Source, _: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let text = match source {
            Source::Text(text) => text.clone(),
            Source::Value(value) => value.to_string(),
            other => return Err(mm_core::Error::Sample(format!("{other:?} is no text"))),
        };
        if text.contains("unreadable") {
            return Err(mm_core::Error::Sample(format!("found `{text}`")));
        }
        Tensor::from_slice(&[text.len() as f32, text.bytes().map(f32::from).sum()])
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        "bytes".into()
    }
}

/// Adds to each vector the size of the batch, which says with which others it was embedded.
struct ByteEmbedder;

impl Embedder for ByteEmbedder {
    fn modalities(&self) -> Vec<Modality> {
        vec![Modality::TEXT, Modality::from("title")]
    }

    fn processor(&self, _: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(Arc::new(Bytes))
    }

    fn embed_samples(&self, _: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        let size = Tensor::from_slice(&[samples.len() as f32])?;
        let rows = samples.iter().map(|sample| Tensor::cat([sample, &size], 0)).collect::<mm_core::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&rows, 0)?)
    }

    fn fingerprint(&self) -> Result<String> {
        Ok("bytes".into())
    }
}

/// A table of so many rows, of which some have no text, two texts, or one that cannot be read.
fn write_table(folder: &Path, rows: usize, unreadable: &str) {
    let text = |row: usize| match row % 11 {
        3 => Value::Null,
        5 => json!(["two", format!("texts of {row}")]),
        _ if row % 1000 == 999 => json!(format!("{unreadable} {row}")),
        _ => json!("word ".repeat(row % 7) + &row.to_string()),
    };
    let line = |row: usize| json!({"id": format!("row {row}"), "text": text(row), "title": format!("title {row}")});
    let lines: String = (0..rows).map(|row| line(row).to_string() + "\n").collect();
    std::fs::write(folder.join("data.jsonl"), lines).unwrap();
}

fn list(folder: &Path, rows: usize) -> Result<RowList> {
    let mut config = ManifestConfig { manifest: "data.jsonl".into(), ..ManifestConfig::default() };
    for name in ["text", "title"] {
        config.columns.modalities.insert(name.into(), name.into());
    }
    let size = PieceSize { rows, ..PieceSize::default() };
    RowList::read(ManifestPieces::open(&config, folder, &ColumnInference::default(), size)?)
}

/// Embeds in pieces of so many rows, and stops after some batches.
fn embed(folder: &Path, out: &str, modality: Option<&str>, rows: usize, batches: usize) -> Result<EmbedSummary> {
    let options = EmbedOptions { modalities: modality.map(Modality::from).into_iter().collect(), ..Default::default() };
    let (stop, mut left) = (AtomicBool::new(false), batches);
    embed_all(&ByteEmbedder, &list(folder, rows)?, &folder.join(out), &options, &stop, &mut |_, _| {
        left -= 1;
        stop.store(left == 0, Ordering::Relaxed);
    })
}

fn outputs(folder: &Path, out: &str) -> Vec<Vec<u8>> {
    let out = folder.join(out);
    let files: Vec<PathBuf> = [out.clone(), rows_file(&out)].into_iter().filter(|path| path.exists()).collect();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[cfg(feature = "parquet")]
const NAMES: [&str; 3] = ["n.npy", "s.safetensors", "p.parquet"];
#[cfg(not(feature = "parquet"))]
const NAMES: [&str; 2] = ["n.npy", "s.safetensors"];

/// The batches, and so the vectors, do not depend on the pieces.
#[test]
fn vectors_do_not_depend_on_the_size_of_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_table(root, 5000, "unreadable");
    for name in NAMES {
        let modality = name.ends_with("npy").then_some("text");
        let whole = embed(root, name, modality, usize::MAX, 1000).unwrap();
        // One of 11 has none, one has two.
        assert_eq!((whole.missing, whole.failed.len(), whole.missing_examples.len()), (455, 4, 20));
        assert_eq!(whole.missing_examples[1].id, "row 14");
        let texts = 5000 - 455 + 455 - 4;
        assert_eq!(whole.vectors, if modality.is_some() { texts } else { texts + 5000 });
        let expected = outputs(root, name);
        for rows in [1, 7, 1000] {
            std::fs::remove_dir_all(root.join(format!("{name}.part"))).unwrap();
            std::fs::remove_file(root.join(name)).unwrap();
            let found = embed(root, name, modality, rows, 1000).unwrap();
            assert_eq!((found.vectors, found.missing, found.failed.len()), (whole.vectors, 455, 4), "{rows}");
            assert!(outputs(root, name) == expected, "{name}: {rows}");
        }
    }
    // The vectors are those of the texts, in batches of 2048.
    let array = mm_data::read_npy(&root.join("n.npy")).unwrap().to_vec::<f32>().unwrap();
    let rows = read_rows(&root.join("n.npy"), array.len() / 3).unwrap().unwrap();
    assert_eq!((rows[0].id.as_str(), rows[6].id.as_str(), rows[6].value), ("row 0", "row 5", Some(1)));
    assert_eq!(array[..2], [1.0, f32::from(b'0')]);
    assert!(array[3 * 3..4 * 3].iter().all(|value| value.is_nan()));
    assert_eq!(array[6 * 3], "texts of 5".len() as f32);
    // Two in a batch could not be read.
    assert_eq!(array[2], 2046.0);
}

#[test]
fn an_embedding_that_was_stopped_in_a_piece_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_table(root, 5000, "readable");
    for name in NAMES {
        let modality = name.ends_with("npy").then_some("text");
        embed(root, name, modality, usize::MAX, 1000).unwrap();
        let expected = outputs(root, name);
        std::fs::remove_file(root.join(name)).unwrap();
        // In the texts, and where there are two modalities in the titles, of which 64 are embedded together.
        let batches = if modality.is_some() { &[1, 1][..] } else { &[1, 1, 20] };
        for batches in batches.iter().copied() {
            let stopped = embed(root, name, modality, 900, batches).unwrap();
            assert!(stopped.stopped && !root.join(name).exists(), "{name}");
        }
        let ended = embed(root, name, modality, 700, 1000).unwrap();
        assert!(ended.resumed > 4000 && !ended.stopped, "{ended:?}");
        assert!(outputs(root, name) == expected, "{name}");
        assert!(!root.join(format!("{name}.part")).exists());
    }
}

#[test]
fn values_that_failed_are_tried_again_before_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_table(root, 5000, "unreadable");
    let stopped = embed(root, "v.npy", Some("text"), 100, 2).unwrap();
    // Those of the rows after them were not tried, rows without a value are known from the list.
    assert_eq!((stopped.vectors, stopped.failed.len(), stopped.missing), (4096 - 4, 4, 455));
    let ended = embed(root, "v.npy", Some("text"), 64, 1000).unwrap();
    assert_eq!((ended.resumed, ended.vectors, ended.failed.len()), (4092, 4996, 4));
    // In one batch: those that failed, and fail again, and the rest of the 5,000 values.
    let array = mm_data::read_npy(&root.join("v.npy")).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(array[array.len() - 1], 5000.0 - 4096.0);
}

#[test]
fn a_table_that_changes_while_it_is_embedded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (rows, expected) in [(31, "row 31: is another row"), (29, "fewer rows")] {
        write_table(root, 30, "readable");
        let list = list(root, 4).unwrap();
        write_table(root, rows, "readable");
        let stop = AtomicBool::new(false);
        let options = EmbedOptions { modalities: vec![Modality::TEXT], ..EmbedOptions::default() };
        let found = embed_all(&ByteEmbedder, &list, &root.join(format!("{rows}.npy")), &options, &stop, &mut |_, _| {});
        let error = found.unwrap_err().to_string();
        assert!(error.contains(expected), "{rows}: {error}");
    }
}

/// Texts that change and keep their ids are seen by the hash of the table.
#[test]
fn a_table_whose_texts_change_while_it_is_embedded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_table(root, 30, "readable");
    let (list, file) = (list(root, 4).unwrap(), root.join("data.jsonl"));
    let change = &mut |_, _| {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("word", "verb")).unwrap();
    };
    let (out, options) = (root.join("s.safetensors"), EmbedOptions::default());
    let found = embed_all(&ByteEmbedder, &list, &out, &options, &AtomicBool::new(false), change);
    let error = found.unwrap_err().to_string();
    assert!(error.contains("was changed while it was embedded") && error.contains("s.safetensors.part"), "{error}");
    assert!(!out.exists());
}

/// What is read as a missing value decides which entries there are.
#[test]
fn an_embedding_is_not_continued_with_other_missing_values() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_table(root, 5000, "unreadable");
    assert!(embed(root, "n.npy", Some("text"), 100, 1).unwrap().stopped);
    let mut config = ManifestConfig { manifest: "data.jsonl".into(), ..ManifestConfig::default() };
    config.columns.modalities.insert("text".into(), "text".into());
    config.missing_values = Some(vec!["unknown".into()]);
    let data = ManifestPieces::open(&config, root, &ColumnInference::default(), PieceSize::default()).unwrap();
    let options = EmbedOptions { modalities: vec![Modality::TEXT], ..EmbedOptions::default() };
    let list = RowList::read(data).unwrap();
    let found = embed_all(&ByteEmbedder, &list, &root.join("n.npy"), &options, &AtomicBool::new(false), &mut |_, _| {});
    let error = found.unwrap_err().to_string();
    assert!(error.contains("missing_values"), "{error}");
}
