//! Questions and captions as COCO's, VQA's and Karpathy's JSON files hold them, with whatever pictures lie in the folder.

use super::walk;
use crate::{Error, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

fn read<T: DeserializeOwned>(file: &Path, wanted: &str) -> Result<T> {
    let text = std::fs::read(file).map_err(|e| Error::file(file, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::file(file, format!("not {wanted}: {e}")))
}

/// The files of a folder: JSON whose names hold a word, and pictures by their names.
struct Folder {
    files: Vec<PathBuf>,
    pictures: HashMap<String, PathBuf>,
    place: PathBuf,
}

impl Folder {
    fn open(folder: &Path) -> Result<Self> {
        let place = std::fs::canonicalize(folder).map_err(|e| Error::file(folder, e))?;
        let (mut files, mut pictures) = (Vec::new(), HashMap::new());
        for file in walk(&place)? {
            let Some(name) = file.file_name().map(|n| n.to_string_lossy().into_owned()) else { continue };
            if file.extension().is_some_and(|e| e == "json") {
                files.push(file);
            } else {
                pictures.insert(name, file);
            }
        }
        Ok(Self { files, pictures, place })
    }

    fn named<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a PathBuf> {
        self.files.iter().filter(move |f| f.file_name().is_some_and(|n| n.to_string_lossy().contains(word)))
    }

    /// Where a picture is; where it should be when it is not there, so that the row is told as broken.
    fn picture(&self, name: &str, below: &str) -> String {
        let missing = || self.place.join(below).join(name);
        self.pictures.get(name).cloned().unwrap_or_else(missing).to_string_lossy().into_owned()
    }
}

/// Which side a file's name says it is of: what people measure on (`val`) is held out here.
fn side(name: &str) -> &'static str {
    if name.contains("train") { "train" } else { "test" }
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<Asked>,
    #[serde(default)]
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
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
pub(super) fn questions(folder: &Path) -> Result<Vec<Value>> {
    let folder = Folder::open(folder)?;
    let mut known: BTreeMap<u64, Annotation> = BTreeMap::new();
    for file in folder.named("annotations") {
        let all: Annotations = read(file, "VQA's annotations")?;
        known.extend(all.annotations.into_iter().map(|a| (a.question_id, a)));
    }
    // Pairs of one question about two pictures that answer it differently (v2's balanced pairs, Goyal 2017).
    let mut pairs: BTreeMap<u64, String> = BTreeMap::new();
    for file in folder.named("complementary_pairs") {
        let all: Vec<[u64; 2]> = read(file, "VQA's pairs of questions")?;
        pairs.extend(all.into_iter().flat_map(|[a, b]| [a, b].map(|id| (id, format!("{a}-{b}")))));
    }
    let mut rows = Vec::new();
    for file in folder.named("questions") {
        let all: Questions = read(file, "VQA's questions")?;
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let part =
            all.data_subtype.unwrap_or_else(|| if name.contains("train") { "train2014" } else { "val2014" }.into());
        for Asked { question_id, image_id, question } in all.questions {
            // Questions without answers (the challenge's own test side) cannot be learned from or measured on.
            let Some(annotation) = known.get(&question_id) else { continue };
            let said: Vec<&str> = annotation.answers.iter().map(|a| a.answer.as_str()).collect();
            let most = || {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                said.iter().for_each(|a| *counts.entry(a).or_default() += 1);
                counts.into_iter().max_by_key(|(_, n)| *n).map(|(a, _)| a.to_owned()).unwrap_or_default()
            };
            let picture = folder.picture(&format!("COCO_{part}_{image_id:012}.jpg"), &part);
            let mut row = json!({
                "id": question_id.to_string(), "group": image_id.to_string(), "split": side(&part), "image": picture, "text": question,
                "label": annotation.multiple_choice_answer.clone().unwrap_or_else(most),
                "answers": said.iter().map(|a| a.replace('|', " ")).collect::<Vec<_>>().join("|"),
                "question_type": annotation.question_type, "answer_type": annotation.answer_type,
            });
            if let Some(pair) = pairs.get(&question_id) {
                row["pair"] = json!(pair);
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        let wanted = "no questions with answers here; wanted VQA's *questions.json beside its *annotations.json";
        return Err(Error::file(&folder.place, wanted));
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
    images: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
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

/// Captions: Karpathy's `dataset_*.json` (COCO, Flickr8k, Flickr30k) where it is there, else COCO's `captions_*.json`.
pub(super) fn captions(folder: &Path) -> Result<Vec<Value>> {
    let folder = Folder::open(folder)?;
    let mut rows = Vec::new();
    for file in folder.named("dataset_") {
        let all: Karpathy = read(file, "Karpathy's splits")?;
        for Described { filename, filepath, split, sentences } in all.images {
            let split = match split.as_str() {
                "restval" => "train",
                "val" => "valid",
                other => other,
            };
            let said: Vec<&str> = sentences.iter().map(|s| s.raw.trim()).collect();
            rows.push(json!({"id": filename, "group": filename, "split": split, "image": folder.picture(&filename, &filepath), "text": said}));
        }
    }
    if rows.is_empty() {
        for file in folder.named("captions_") {
            let all: Captions = read(file, "COCO's captions")?;
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let part = name.trim_start_matches("captions_").trim_end_matches(".json").to_owned();
            let mut said: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for Caption { image_id, caption } in all.annotations {
                said.entry(image_id).or_default().push(caption.trim().to_owned());
            }
            for Image { id, file_name } in all.images {
                let Some(said) = said.get(&id) else { continue };
                let picture = folder.picture(&file_name, &part);
                rows.push(json!({"id": id.to_string(), "group": id.to_string(), "split": side(&part), "image": picture, "text": said}));
            }
        }
    }
    if rows.is_empty() {
        let wanted = "no captions here; wanted Karpathy's dataset_*.json or COCO's captions_*.json";
        return Err(Error::file(&folder.place, wanted));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_the_community_holds_them_become_rows() {
        let world = std::env::temp_dir().join(format!("mm-coco-{}", std::process::id()));
        std::fs::create_dir_all(world.join("train2014")).unwrap();
        let write = |name: &str, value: Value| std::fs::write(world.join(name), value.to_string()).unwrap();
        std::fs::write(world.join("train2014/COCO_train2014_000000000009.jpg"), b"x").unwrap();
        let people: Vec<Value> = ["two", "two", "2|3"].iter().map(|a| json!({"answer": a, "answer_id": 1})).collect();
        for (part, picture) in [("train2014", 9), ("val2014", 10)] {
            let questions = json!({"data_subtype": part, "questions": [
                {"question_id": picture * 1000, "image_id": picture, "question": "How many?"},
                {"question_id": picture * 1000 + 1, "image_id": picture, "question": "No answer?"},
            ]});
            write(&format!("v2_OpenEnded_mscoco_{part}_questions.json"), questions);
            let annotations = json!({"annotations": [{"question_id": picture * 1000, "image_id": picture, "question_type": "how many",
                "answer_type": "number", "multiple_choice_answer": "2", "answers": people}]});
            write(&format!("v2_mscoco_{part}_annotations.json"), annotations);
        }
        write("v2_mscoco_train2014_complementary_pairs.json", json!([[9000, 9001]]));
        let rows = questions(&world).unwrap();
        assert_eq!((&rows[0]["pair"], rows[1].get("pair")), (&json!("9000-9001"), None));
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (&rows[0]["label"], &rows[0]["answers"], &rows[0]["split"]),
            (&json!("2"), &json!("two|two|2 3"), &json!("train"))
        );
        assert!(rows[0]["image"].as_str().unwrap().ends_with("train2014/COCO_train2014_000000000009.jpg"));
        // A picture that is not there is named where it should be.
        assert!(rows[1]["image"].as_str().unwrap().ends_with("val2014/COCO_val2014_000000000010.jpg"));
        assert_eq!(rows[1]["split"], "test");

        let images = json!([{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}]);
        let said = json!([{"image_id": 9, "caption": " A dog. "}, {"image_id": 9, "caption": "A brown dog"}]);
        write("captions_train2014.json", json!({"images": images, "annotations": said}));
        assert_eq!(captions(&world).unwrap()[0]["text"], json!(["A dog.", "A brown dog"]));
        let splits = ["train", "restval", "val", "test"].map(|s| {
            json!({"filename": format!("{s}.jpg"), "filepath": "val2014", "split": s, "sentences": [{"raw": "A cat.", "tokens": ["a"]}]})
        });
        write("dataset_coco.json", json!({"images": splits, "dataset": "coco"}));
        let rows = captions(&world).unwrap();
        let sides: Vec<&str> = rows.iter().map(|r| r["split"].as_str().unwrap()).collect();
        assert_eq!(sides, ["train", "train", "valid", "test"]);
        std::fs::write(world.join("dataset_coco.json"), "[1]").unwrap();
        assert!(captions(&world).unwrap_err().to_string().contains("not Karpathy's splits"));
        std::fs::remove_dir_all(world).unwrap();
    }
}
