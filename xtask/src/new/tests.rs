//! Names and files; that what is made compiles is checked by `cargo xtask new --check`.

use super::{
    generate::{check_target, fill, generate},
    kind::{ALIGNMENT_METHOD, FUSION_OPERATOR, KINDS, Kind, MODALITY, READER, REASONING_NETWORK, TASK},
    name::{camel, check, snake},
};
use crate::{paths::root, setup::cargo_settings};
use std::{collections::BTreeSet, path::Path};

fn error(kind: &Kind, name: &str) -> String {
    check(kind, name).unwrap_err().to_string()
}

#[test]
fn names_that_mm_has_are_taken() {
    let cases: [(&Kind, &[&str]); 6] = [
        (&MODALITY, &["image", "cnn", "tfidf", "vector", "tabular", "learned"]),
        (&FUSION_OPERATOR, &["concat", "tensor_fusion", "low-rank-fusion", "mctn"]),
        (&ALIGNMENT_METHOD, &["cca", "procrustes", "auto"]),
        (&REASONING_NETWORK, &["san", "relation_network", "bottom-up-top-down"]),
        (&TASK, &["retrieval", "prediction", "finetuning"]),
        (&READER, &["emoji", "easy-vqa", "coco-captions"]),
    ];
    for (kind, names) in cases {
        for name in names {
            let found = error(kind, name);
            assert!(found.contains("already; choose another name"), "{} {name}: {found}", kind.command);
        }
        check(kind, "body-motion").unwrap();
    }
}

#[test]
fn names_that_no_crate_can_have_are_refused() {
    for name in ["", "Scent", "9lives", "a b", "a/b", "../a", "a--b", "a-", "naïve", &"a".repeat(65)] {
        assert!(error(&MODALITY, name).contains("expected at most 64 lower-case letters"), "{name}");
    }
    for name in ["fn", "self", "std", "test"] {
        assert!(error(&MODALITY, name).contains("a name of Rust itself"), "{name}");
    }
    for name in ["serde", "serde-json", "mm-core"] {
        assert!(error(&MODALITY, name).contains("a package that mm depends on"), "{name}");
    }
}

#[test]
fn the_name_replaces_the_placeholder_in_each_spelling() {
    assert_eq!((snake("body-motion"), camel("body-motion")), ("body_motion".into(), "BodyMotion".into()));
    let filled = fill("template-name template_name TemplateNameConfig", "body-motion");
    assert_eq!(filled, "body-motion body_motion BodyMotionConfig");
}

#[test]
fn every_file_of_a_template_is_made_and_none_is_forgotten() {
    for kind in KINDS {
        let templates = root().join("xtask/src/new/templates").join(snake(kind.command));
        let is_source = |name: &String| Path::new(name).extension().is_some_and(|e| e == "rs");
        let files = std::fs::read_dir(&templates).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(is_source).map(|name| format!("src/{name}")).collect();
        let listed: BTreeSet<String> = kind.files.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(listed, files, "{}", kind.command);
    }
}

#[test]
fn a_crate_is_made_whole_or_not_at_all() {
    if !cargo_settings().exists() {
        eprintln!("skipped: this clone is not set up (cargo xtask setup)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("projects");
    let made = generate(&MODALITY, "body-motion", &parent).unwrap();
    assert_eq!(made, std::path::absolute(&parent).unwrap().join("body-motion"));
    let read = |file: &str| std::fs::read_to_string(made.join(file)).unwrap();
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    assert_eq!(manifest["package"]["name"].as_str(), Some("body-motion"));
    let core = manifest["dependencies"]["mm-core"]["path"].as_str().unwrap();
    assert!(Path::new(core).join("Cargo.toml").is_file(), "{core}");
    let settings: toml::Table = toml::from_str(&read(".cargo/config.toml")).unwrap();
    assert!(settings["env"]["LIBTORCH"].is_str() && settings["env"]["RUST_TEST_THREADS"].is_str());
    for file in [".gitignore", "Cargo.lock", "README.md", "src/main.rs", "src/encoder.rs"] {
        let text = read(file);
        assert!(!text.contains("emplate-name") && !text.contains("emplate_name"), "{file}: {text}");
    }
    // Nothing is overwritten, and nothing else is left behind.
    std::fs::write(made.join("src/encoder.rs"), "mine").unwrap();
    let error = check_target("body-motion", &parent).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert!(generate(&MODALITY, "body-motion", &parent).is_err());
    assert_eq!(read("src/encoder.rs"), "mine");
    let names: Vec<_> = std::fs::read_dir(&parent).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["body-motion"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(check_target("body-motion", &file).unwrap_err().to_string().contains("expected a folder"));
    // A folder below a file: as where the user may not write, no folder can be made.
    let error = format!("{:#}", generate(&MODALITY, "body-motion", &file.join("below")).unwrap_err());
    assert!(error.contains("a folder cannot be made there"), "{error}");
}
