//! Visual question answering and captions: the JSON files of VQA, COCO and Karpathy's splits, with the images in the
//! folder.

use super::{DatasetReader, walk, write_manifest};
use crate::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

pub(super) const QUESTIONS: DatasetReader = DatasetReader {
    name: "vqa",
    description: "questions about photographs with ten answers each (VQA v1 or v2: *questions.json, *annotations.json, COCO's images)",
    prepare: |folder, manifest| write_manifest(manifest, &questions(folder)?),
};

pub(super) const CAPTIONS: DatasetReader = DatasetReader {
    name: "coco-captions",
    description: "photographs with five captions each (Karpathy's dataset_*.json, or COCO's captions_*.json, and the images)",
    prepare: |folder, manifest| write_manifest(manifest, &captions(folder)?),
};

fn read_json<T: DeserializeOwned>(file: &Path, expected: &str) -> Result<T> {
    let text = std::fs::read(file).map_err(|e| Error::file(file, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(file, format!("not {expected}: {e}")))
}

/// The JSON files of a folder, and its images by file name.
struct Folder {
    path: PathBuf,
    json_files: Vec<PathBuf>,
    images: HashMap<String, PathBuf>,
}

impl Folder {
    fn open(folder: &Path) -> Result<Self> {
        let path = std::fs::canonicalize(folder).map_err(|e| Error::file(folder, e))?;
        let (mut json_files, mut images) = (Vec::new(), HashMap::new());
        for file in walk(&path)? {
            let Some(name) = file.file_name().map(|n| n.to_string_lossy().into_owned()) else { continue };
            if file.extension().is_some_and(|e| e == "json") {
                json_files.push(file);
            } else {
                images.insert(name, file);
            }
        }
        Ok(Self { path, json_files, images })
    }

    /// The JSON files whose names contain `part`.
    fn json_files<'a>(&'a self, part: &'a str) -> impl Iterator<Item = &'a PathBuf> {
        self.json_files.iter().filter(move |f| f.file_name().is_some_and(|n| n.to_string_lossy().contains(part)))
    }

    /// The path of an image; where it is missing, the path that it should have in `subfolder`, so that the row is
    /// reported.
    fn image(&self, name: &str, subfolder: &str) -> String {
        let missing = || self.path.join(subfolder).join(name);
        self.images.get(name).cloned().unwrap_or_else(missing).to_string_lossy().into_owned()
    }
}

/// The split that a file's name states. `val` is the test split here, because published results are measured on it.
fn split_of(name: &str) -> &'static str {
    if name.contains("train") { "train" } else { "test" }
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<QuestionEntry>,
    #[serde(default)]
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct QuestionEntry {
    question_id: u64,
    image_id: u64,
    question: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: u64,
    #[serde(default)]
    question_type: String,
    #[serde(default)]
    answer_type: String,
    #[serde(default)]
    multiple_choice_answer: Option<String>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
}

/// VQA (v1, v2): `*questions.json` with the `*annotations.json` of the same questions.
fn questions(folder: &Path) -> Result<Vec<Value>> {
    let folder = Folder::open(folder)?;
    let mut annotations: BTreeMap<u64, Annotation> = BTreeMap::new();
    for file in folder.json_files("annotations") {
        let all: Annotations = read_json(file, "VQA's annotations")?;
        annotations.extend(all.annotations.into_iter().map(|a| (a.question_id, a)));
    }
    // VQA v2's balanced pairs: one question about two images with different answers
    // ([*Making the V in VQA Matter*](https://arxiv.org/abs/1612.00837), Goyal et al., 2017).
    let mut pairs: BTreeMap<u64, String> = BTreeMap::new();
    for file in folder.json_files("complementary_pairs") {
        let all: Vec<[u64; 2]> = read_json(file, "VQA's pairs of questions")?;
        pairs.extend(all.into_iter().flat_map(|[a, b]| [a, b].map(|id| (id, format!("{a}-{b}")))));
    }
    let mut rows = Vec::new();
    for file in folder.json_files("questions") {
        let all: Questions = read_json(file, "VQA's questions")?;
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let part =
            all.data_subtype.unwrap_or_else(|| if name.contains("train") { "train2014" } else { "val2014" }.into());
        for QuestionEntry { question_id, image_id, question } in all.questions {
            // Questions without answers (the challenge's test split) can be neither trained nor evaluated on.
            let Some(annotation) = annotations.get(&question_id) else { continue };
            let answers: Vec<&str> = annotation.answers.iter().map(|a| a.answer.as_str()).collect();
            let most_frequent = || {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                answers.iter().for_each(|a| *counts.entry(a).or_default() += 1);
                counts.into_iter().max_by_key(|(_, n)| *n).map(|(a, _)| a.to_owned()).unwrap_or_default()
            };
            let image = folder.image(&format!("COCO_{part}_{image_id:012}.jpg"), &part);
            let mut row = json!({
                "id": question_id.to_string(), "group": image_id.to_string(), "split": split_of(&part), "image": image,
                "text": question,
                "label": annotation.multiple_choice_answer.clone().unwrap_or_else(most_frequent),
                "answers": answers.iter().map(|a| a.replace('|', " ")).collect::<Vec<_>>().join("|"),
                "question_type": annotation.question_type, "answer_type": annotation.answer_type,
            });
            if let Some(pair) = pairs.get(&question_id) {
                row["pair"] = json!(pair);
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        let reason = "found no questions with answers, expected VQA's *questions.json and *annotations.json";
        return Err(Error::file(&folder.path, reason));
    }
    Ok(rows)
}

#[derive(Deserialize)]
struct Captions {
    images: Vec<Image>,
    annotations: Vec<Caption>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Caption {
    image_id: u64,
    caption: String,
}

#[derive(Deserialize)]
struct Karpathy {
    images: Vec<KarpathyImage>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    filename: String,
    #[serde(default)]
    filepath: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// Captions: Karpathy's `dataset_*.json` (COCO, Flickr8k, Flickr30k) where there is one, otherwise COCO's
/// `captions_*.json`.
fn captions(folder: &Path) -> Result<Vec<Value>> {
    let folder = Folder::open(folder)?;
    let mut rows = Vec::new();
    for file in folder.json_files("dataset_") {
        let all: Karpathy = read_json(file, "Karpathy's splits")?;
        for KarpathyImage { filename, filepath, split, sentences } in all.images {
            let split = match split.as_str() {
                "restval" => "train",
                "val" => "valid",
                other => other,
            };
            let texts: Vec<&str> = sentences.iter().map(|s| s.raw.trim()).collect();
            let image = folder.image(&filename, &filepath);
            rows.push(json!({"id": filename, "group": filename, "split": split, "image": image, "text": texts}));
        }
    }
    if rows.is_empty() {
        for file in folder.json_files("captions_") {
            let all: Captions = read_json(file, "COCO's captions")?;
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let part = name.trim_start_matches("captions_").trim_end_matches(".json").to_owned();
            let mut texts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for Caption { image_id, caption } in all.annotations {
                texts.entry(image_id).or_default().push(caption.trim().to_owned());
            }
            for Image { id, file_name } in all.images {
                let Some(texts) = texts.get(&id) else { continue };
                let image = folder.image(&file_name, &part);
                let (id, split) = (id.to_string(), split_of(&part));
                rows.push(json!({"id": id, "group": id, "split": split, "image": image, "text": texts}));
            }
        }
    }
    if rows.is_empty() {
        let reason = "found no captions, expected Karpathy's dataset_*.json or COCO's captions_*.json";
        return Err(Error::file(&folder.path, reason));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_files_become_rows() {
        let folder = std::env::temp_dir().join(format!("mm-coco-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("train2014")).unwrap();
        let write = |name: &str, value: Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
        std::fs::write(folder.join("train2014/COCO_train2014_000000000009.jpg"), b"x").unwrap();
        let answers: Vec<Value> = ["two", "two", "2|3"].iter().map(|a| json!({"answer": a, "answer_id": 1})).collect();
        for (part, image) in [("train2014", 9), ("val2014", 10)] {
            let questions = json!({"data_subtype": part, "questions": [
                {"question_id": image * 1000, "image_id": image, "question": "How many?"},
                {"question_id": image * 1000 + 1, "image_id": image, "question": "No answer?"},
            ]});
            write(&format!("v2_OpenEnded_mscoco_{part}_questions.json"), questions);
            let annotations = json!({"annotations": [{"question_id": image * 1000, "image_id": image, "question_type": "how many",
                "answer_type": "number", "multiple_choice_answer": "2", "answers": answers}]});
            write(&format!("v2_mscoco_{part}_annotations.json"), annotations);
        }
        write("v2_mscoco_train2014_complementary_pairs.json", json!([[9000, 9001]]));
        let rows = questions(&folder).unwrap();
        assert_eq!((&rows[0]["pair"], rows[1].get("pair")), (&json!("9000-9001"), None));
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (&rows[0]["label"], &rows[0]["answers"], &rows[0]["split"]),
            (&json!("2"), &json!("two|two|2 3"), &json!("train"))
        );
        assert!(rows[0]["image"].as_str().unwrap().ends_with("train2014/COCO_train2014_000000000009.jpg"));
        // A missing image has the path that it should have.
        assert!(rows[1]["image"].as_str().unwrap().ends_with("val2014/COCO_val2014_000000000010.jpg"));
        assert_eq!(rows[1]["split"], "test");

        let images = json!([{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}]);
        let captions_json = json!([{"image_id": 9, "caption": " A dog. "}, {"image_id": 9, "caption": "A brown dog"}]);
        write("captions_train2014.json", json!({"images": images, "annotations": captions_json}));
        assert_eq!(captions(&folder).unwrap()[0]["text"], json!(["A dog.", "A brown dog"]));
        let splits = ["train", "restval", "val", "test"].map(|s| {
            json!({"filename": format!("{s}.jpg"), "filepath": "val2014", "split": s, "sentences": [{"raw": "A cat.", "tokens": ["a"]}]})
        });
        write("dataset_coco.json", json!({"images": splits, "dataset": "coco"}));
        let rows = captions(&folder).unwrap();
        let found: Vec<&str> = rows.iter().map(|r| r["split"].as_str().unwrap()).collect();
        assert_eq!(found, ["train", "train", "valid", "test"]);
        std::fs::write(folder.join("dataset_coco.json"), "[1]").unwrap();
        assert!(captions(&folder).unwrap_err().to_string().contains("not Karpathy's splits"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
