//! Stores that are exported: what is refused, and which files stay as they are.

use crate::{
    common::{mm, refused},
    index::workspace,
    json, ok,
};

#[test]
fn exports_replace_their_own_files_alone() {
    let workspace = workspace();
    let folder = workspace.path();
    ok(&mm(&["index", "build", "data.jsonl", "--model", "clip", "--modality", "image", "--store", "s"], folder));
    // Files of the user.
    let others = ["rows.jsonl.new", "rows.parquet.new", "vectors.npy.new", "vectors.rows.jsonl.new", "plain"];
    others.iter().for_each(|name| std::fs::write(folder.join(name), "of the user").unwrap());
    for out in ["rows.jsonl", "rows.parquet", "vectors.npy", "photos-v1.2", "photos.csv/"] {
        let export = ["index", "export", "--store", "s", "--modality", "image", "--out", out, "--json"];
        for _ in 0..2 {
            assert_eq!(json(&mm(&export, folder))["rows"], 12, "{out}");
        }
    }
    for name in others {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), "of the user", "{name}");
    }
    let of_folder = |name: &str| -> Vec<String> {
        let entries = folder.join(name).read_dir().unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for name in ["photos-v1.2", "photos.csv"] {
        assert_eq!(of_folder(name), ["img_emb", "metadata", "provenance.json"]);
    }
    let partial = of_folder(".").into_iter().filter(|name| name.starts_with(".mm-"));
    assert_eq!(partial.count(), 0);
    let into = |out: &str, wanted: &[&str]| refused(&["index", "export", "--store", "s", "--out", out], folder, wanted);
    into("plain", &["--out plain: found a file, expected a folder or a new name"]);
    into("plain/", &["--out plain/: found a file, expected a folder or a new name"]);
    into("photos.tsv", &["--out photos.tsv: expected a file name that ends in .jsonl, .parquet or .npy"]);
}

#[test]
fn an_export_without_vectors_writes_nothing() {
    let workspace = workspace();
    let folder = workspace.path();
    let build = ["index", "build", "data.jsonl", "--model", "clip", "--modality", "image", "--modality", "text"];
    ok(&mm(&[&build[..], &["--store", "s"]].concat(), folder));
    let export = |out: &str, more: &[&str], wanted: &str| {
        refused(&[&["index", "export", "--store", "s", "--out", out], more].concat(), folder, &[wanted]);
    };
    let none = ["--filter", "id = 99"];
    export("empty", &none, "--out empty: found no row with a vector of image and text, expected at least one");
    export("empty.npy", &[&none[..], &["--modality", "text"]].concat(), "found no row with a vector of text");
    for name in ["empty", "empty.npy", "empty.rows.jsonl"] {
        assert!(!folder.join(name).exists(), "{name}");
    }
    // Nor are the files of an earlier export touched.
    ok(&mm(&["index", "export", "--store", "s", "--modality", "text", "--out", "text.npy"], folder));
    let files = || ["text.npy", "text.rows.jsonl"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let before = files();
    export("text.npy", &[&none[..], &["--modality", "text"]].concat(), "nothing was written");
    assert_eq!(files(), before);
}
