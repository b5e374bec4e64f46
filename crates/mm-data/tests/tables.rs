//! Tables as pandas, Hugging Face datasets, spreadsheets and Python's json write them.

use mm_core::{Modality, Source};
use mm_data::{
    CacheKey, Manifest, ManifestConfig, Split, SplitConfig, Table, TableOptions, decode::ImageLimits,
    decode_image_source,
};
use serde_json::{Value, json};
use std::{io::Write, path::Path};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A PNG of two red pixels, as base64.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAD0lEQVR4nGP8z8DAwMAAAAYIAQHLR3Z1AAAAAElFTkSuQmCC";

fn table(name: &str, bytes: impl AsRef<[u8]>) -> Result<Table> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(name), bytes)?;
    Ok(Table::read(&folder.path().join(name), &TableOptions::default())?)
}

fn open(name: &str, text: &str) -> Result<Manifest> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(name), text)?;
    Ok(Manifest::open(&ManifestConfig { manifest: name.into(), ..ManifestConfig::default() }, folder.path())?)
}

fn bound(manifest: &Manifest) -> Vec<(&str, String)> {
    manifest.columns.modalities.iter().map(|(m, c)| (m.as_str(), c.to_string())).collect()
}

fn error<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn separators_are_found_and_consistent_commas_win() -> Result<()> {
    for (name, text) in [
        ("a.csv", "id;x;text\n1;1,5;a dog\n2;2,5;a cat\n"),
        ("a.csv", "id\tx\ttext\n1\t1,5\ta dog\n2\t2,5\ta cat\n"),
        ("a.csv", "id|x|text\n1|1,5|a dog\n2|2,5|a cat\n"),
        ("a.tsv", "id,x,text\n1,\"1,5\",a dog\n2,\"2,5\",a cat\n"),
        ("a.csv", "id,x,text\n1,\"1,5\",a dog\n2,\"2,5\",a cat\n"),
    ] {
        let found = table(name, text)?;
        assert_eq!(found.columns, ["id", "x", "text"], "{text}");
        assert_eq!((found.rows[1].get("x"), found.rows[1].get("text")), (Some("2,5"), Some("a cat")));
    }
    let one = table("a.csv", "text; more\na dog\na cat\n")?;
    assert_eq!((one.columns, one.rows.len()), (vec!["text; more".to_owned()], 2));
    assert!(error(table("a.csv", "id,text\n1,a dog, a cat\n")).contains("needs quotes"));
    Ok(())
}

#[test]
fn doubled_and_empty_column_names_are_those_of_pandas() -> Result<()> {
    let found = table("a.csv", ",text,text, text.1 ,x\n0,a,b,c,d\n")?;
    assert_eq!(found.columns, ["Unnamed: 0", "text", "text.2", "text.1", "x"]);
    assert_eq!(found.rows[0].get("text.2"), Some("b"));
    assert!(
        error(table("a.jsonl", "{\"x\":1,\"text\":\"a\",\"x\":2}\n"))
            .contains("row 1: not a JSON object: the key `x` occurs twice")
    );
    Ok(())
}

#[test]
fn compressed_tables_are_read_whatever_their_name() -> Result<()> {
    let text = "id,text\n1,a dog\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes())?;
    let gzip = gzip.finish()?;
    let zstd = zstd::encode_all(text.as_bytes(), 1)?;
    // Several members, as `cat a.gz b.gz` and bgzip write them.
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    second.write_all(b"2,a cat\n")?;
    let joined = [gzip.clone(), second.finish()?].concat();
    assert_eq!(table("a.csv.gz", &gzip)?.rows.len(), 1);
    assert_eq!(table("a.csv.zst", &zstd)?.rows.len(), 1);
    assert_eq!(table("a.csv", &gzip)?.rows.len(), 1);
    assert_eq!(table("a.csv.gz", &joined)?.rows.len(), 2);
    assert!(error(table("a.csv.gz", &gzip[..gzip.len() - 9])).contains("damaged gzip file"));
    assert!(error(table("a.xlsx.gz", &gzip)).contains("found the extension `.xlsx`"));
    Ok(())
}

#[test]
fn numbers_that_json_lacks_are_missing_and_lists_of_objects_are_tables() -> Result<()> {
    let lines = "{\"x\": NaN, \"t\": \"NaN \\\" Infinity\"}\n{\"x\": -Infinity, \"t\": \"b\", \"late\": [1, NaN]}\n";
    let found = table("a.jsonl", lines)?;
    let mut columns = found.columns.clone();
    columns.sort();
    assert_eq!(columns, ["late", "t", "x"]);
    assert_eq!((found.rows[0].value("x"), found.rows[1].value("x")), (Some(Value::Null), Some(Value::Null)));
    assert_eq!(found.rows[0].get("t"), Some("NaN \" Infinity"));
    assert_eq!(found.rows[1].value("late"), Some(json!([1, null])));
    for name in ["a.json", "a.jsonl"] {
        assert_eq!(table(name, "[{\"x\": 1},\n {\"x\": NaN}]")?.rows.len(), 2);
    }
    assert!(error(table("a.jsonl", "{'x': 1}\n")).contains("row 1: not a JSON object"));
    // U+2028 is a character like any other.
    assert_eq!(table("a.jsonl", "{\"x\": \"a\u{2028}b\"}\n")?.rows.len(), 1);
    Ok(())
}

#[test]
fn integers_of_any_size_keep_their_digits() -> Result<()> {
    // pandas reads them as Python's int.
    let lines = "{\"id\": 18446744073709551617, \"text\": \"a dog\", \"n\": 18446744073709551615}\n\
                 {\"id\": 18446744073709551618, \"text\": \"a cat\", \"n\": NaN}\n";
    let found = table("a.jsonl", lines)?;
    assert_eq!(found.rows[0].value("n"), Some(json!(u64::MAX)));
    let manifest = open("a.jsonl", lines)?;
    let ids: Vec<&str> = manifest.rows.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["18446744073709551617", "18446744073709551618"]);
    Ok(())
}

#[test]
fn missing_values_are_those_of_pandas_unless_set() -> Result<()> {
    let text = "id,label,text\n1,NA,a dog\n2, None ,nan\n3,none,a cat\n4,<NA>,null\n5,?,\n";
    let manifest = open("a.csv", text)?;
    let labels: Vec<Option<&str>> = manifest.rows.iter().map(|r| r.label.as_deref()).collect();
    assert_eq!(labels, [None, None, Some("none"), None, Some("?")]);
    let has_text: Vec<bool> = manifest.rows.iter().map(|r| r.values.contains_key(&Modality::TEXT)).collect();
    assert_eq!(has_text, [true, false, true, false, false]);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a.csv"), text)?;
    let config = ManifestConfig {
        manifest: "a.csv".into(),
        missing_values: Some(vec!["?".into()]),
        ..ManifestConfig::default()
    };
    let manifest = Manifest::open(&config, folder.path())?;
    let labels: Vec<Option<&str>> = manifest.rows.iter().map(|r| r.label.as_deref()).collect();
    assert_eq!(labels, [Some("NA"), Some(" None "), Some("none"), Some("<NA>"), None]);
    Ok(())
}

#[test]
fn text_is_decoded_as_its_encoding_or_refused() -> Result<()> {
    let text = "id,text\n1,größe café\n";
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cell = |t: Table| t.rows[0].get("text").map(ToOwned::to_owned);
    assert_eq!(cell(table("a.csv", [b"\xef\xbb\xbf", text.as_bytes()].concat())?).as_deref(), Some("größe café"));
    assert_eq!(cell(table("a.csv", [b"\xff\xfe", utf16.as_slice()].concat())?).as_deref(), Some("größe café"));
    let ascii: Vec<u8> = "id,text\n1,abc\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(error(table("a.csv", ascii)).contains("--encoding utf-16le"));
    let cp1252 = b"id,text\n1,caf\xe9\n";
    assert!(error(table("a.csv", cp1252)).contains("not valid UTF-8 (first at byte 13)"));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.csv");
    std::fs::write(&path, cp1252)?;
    let options = TableOptions { encoding: Some("windows-1252"), ..TableOptions::default() };
    assert_eq!(cell(Table::read(&path, &options)?).as_deref(), Some("café"));
    Ok(())
}

#[test]
fn columns_are_those_of_all_rows() -> Result<()> {
    let row = |i: usize| match i {
        0..2500 => format!("{{\"id\":\"{i}\",\"note\":\"a b c\"}}\n"),
        _ => format!("{{\"id\":\"{i}\",\"note\":\"a b c\",\"picture\":\"{i}.png\",\"label\":\"x\"}}\n"),
    };
    let manifest = open("a.jsonl", &(0..2600).map(row).collect::<String>())?;
    assert_eq!(bound(&manifest), [("image", "picture".to_owned()), ("text", "note".to_owned())]);
    assert_eq!(manifest.rows.iter().filter(|r| r.label.is_some()).count(), 100);
    Ok(())
}

#[test]
fn a_name_that_says_it_goes_before_the_order_of_columns() -> Result<()> {
    let two = open("a.csv", "id,crop,image,answer,caption\n1,a.png,b.png,yes it is,a red square\n")?;
    assert_eq!(bound(&two), [("image", "image".to_owned()), ("text", "caption".to_owned())]);
    let part = open("a.csv", "crop,main_image,note\na.png,b.png,a b c\n")?;
    assert_eq!(bound(&part)[0], ("image", "main_image".to_owned()));
    let ids = open("a.csv", "id,pic,caption\n0.png,x/0.png,a red square\n")?;
    assert_eq!(bound(&ids)[0], ("image", "pic".to_owned()));
    let no_image = open("a.csv", "id,text_id,caption\n0.png,some words here,a red square\n")?;
    assert_eq!(bound(&no_image), [("text", "caption".to_owned())]);
    let title = open("a.csv", "title,description\nShort,a long description of it\n")?;
    assert_eq!(bound(&title), [("text", "description".to_owned())]);
    let hugging_face = open("a.csv", "file_name,text\nx/0.png,a red square\n")?;
    assert_eq!(bound(&hugging_face)[0], ("image", "file_name".to_owned()));
    // An id that names a file which exists, in a table without another image, is the image.
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a.csv"), "id,label\n0.png,cat\n")?;
    std::fs::write(folder.path().join("0.png"), "")?;
    let kaggle =
        Manifest::open(&ManifestConfig { manifest: "a.csv".into(), ..ManifestConfig::default() }, folder.path())?;
    assert_eq!(bound(&kaggle), [("image", "id".to_owned())]);
    Ok(())
}

fn pixels(source: &Source) -> Result<Vec<u8>> {
    Ok(decode_image_source(source, &ImageLimits::default())?.into_raw())
}

const RED: [u8; 6] = [255, 0, 0, 255, 0, 0];

#[test]
fn images_inside_parquet_are_read() -> Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let open = |column: Option<&str>| {
        let mut config = ManifestConfig { manifest: "images.parquet".into(), ..ManifestConfig::default() };
        config.columns.modalities.extend(column.map(|c| ("image".to_owned(), c.into())));
        Manifest::open(&config, &fixtures)
    };
    let manifest = open(None)?;
    assert_eq!(bound(&manifest), [("image", "image".to_owned()), ("text", "caption".to_owned())]);
    let images: Vec<&[Source]> =
        manifest.rows.iter().map(|r| r.values.get(&Modality::IMAGE).map_or(&[][..], Vec::as_slice)).collect();
    assert_eq!((images[0].len(), images[1].len(), images[2].len()), (1, 1, 0));
    assert_eq!(pixels(&images[0][0])?, RED);
    assert_eq!(pixels(&images[1][0])?, [0, 0, 255, 0, 0, 255]);
    let Source::Bytes(named) = &images[0][0] else { return Err("not bytes".into()) };
    assert_eq!(named.name(), "red.png");
    // A column of plain bytes, and a list of images.
    let raw = open(Some("raw"))?;
    assert_eq!(raw.rows[0].values[&Modality::IMAGE], images[0]);
    let key = |s: &Source| CacheKey::new("f", s);
    assert_eq!(key(&raw.rows[0].values[&Modality::IMAGE][0])?, key(&images[0][0])?);
    assert_ne!(key(&images[0][0])?, key(&images[1][0])?);
    let views = open(Some("views"))?;
    assert_eq!(
        views.rows.iter().map(|r| r.values.get(&Modality::IMAGE).map_or(0, Vec::len)).collect::<Vec<_>>(),
        [2, 0, 0]
    );
    assert_eq!(pixels(&views.rows[0].values[&Modality::IMAGE][0])?, RED);
    assert!(manifest.rows[0].cells.get("caption").is_some() && manifest.rows[0].cells.get("image").is_none());
    Ok(())
}

#[test]
fn images_inside_texts_are_read() -> Result<()> {
    let uri = format!("data:image/png;base64,{PNG}");
    let lines = [
        json!({"id": "a", "picture": PNG}),
        json!({"id": "b", "picture": uri}),
        json!({"id": "c", "picture": {"bytes": PNG, "path": "red.png"}}),
        json!({"id": "d", "picture": [PNG.trim_end_matches('='), uri]}),
    ];
    let manifest = open("a.jsonl", &lines.iter().map(|l| format!("{l}\n")).collect::<String>())?;
    assert_eq!(bound(&manifest), [("image", "picture".to_owned())]);
    for row in &manifest.rows {
        for source in &row.values[&Modality::IMAGE] {
            assert_eq!(pixels(source)?, RED, "{}", row.id);
        }
    }
    assert_eq!(manifest.rows[3].values[&Modality::IMAGE].len(), 2);
    let csv = open("a.csv", &format!("id,picture\n1,{PNG}\n2,{uri}\n").replace(&uri, &format!("\"{uri}\"")))?;
    assert_eq!(pixels(&csv.rows[0].values[&Modality::IMAGE][0])?, RED);
    assert_eq!(pixels(&csv.rows[1].values[&Modality::IMAGE][0])?, RED);
    let svg = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/%3E";
    assert_eq!(bound(&open("a.jsonl", &format!("{}\n", json!({"x": svg})))?), [("image", "x".to_owned())]);
    let damaged = format!("{{\"id\":\"a\",\"picture\":\"{uri}!\"}}\n");
    assert!(error(open("a.jsonl", &damaged)).contains("row 1: column `picture`: found damaged base64"));
    Ok(())
}

#[test]
fn values_that_are_no_files_fail_with_the_reason() -> Result<()> {
    let lines = concat!(
        "{\"image\":\"https://example.org/a.jpg?x=1\"}\n",
        "{\"image\":\"b.jpg\"}\n",
        "{\"image\":\"c.jpg\"}\n",
        "{\"image\":{\"colour\":\"red\"}}\n"
    );
    let manifest = open("a.jsonl", lines)?;
    let error = |row: usize| error(pixels(&manifest.rows[row].values[&Modality::IMAGE][0]));
    assert!(error(0).contains("found a URL (https), expected a file"), "{}", error(0));
    assert!(error(3).contains("expected the path of an image"), "{}", error(3));
    Ok(())
}

/// Folders that Hugging Face's `datasets` wrote (xtask/parity/datasets_fixtures.py): every cell is what it reads.
#[test]
fn folders_of_datasets_are_read() -> Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets");
    let expected: Vec<Value> = serde_json::from_slice(&std::fs::read(fixtures.join("expected.json"))?)?;
    for folder in ["dict", "repository"] {
        let config = ManifestConfig { manifest: folder.into(), ..ManifestConfig::default() };
        let manifest = Manifest::open(&config, &fixtures)?;
        assert_eq!(bound(&manifest), [("image", "image".to_owned()), ("text", "caption".to_owned())]);
        let mut rows: Vec<&mm_data::Row> = manifest.rows.iter().collect();
        // The Parquet files are in the order of their names.
        rows.sort_by_key(|row| row.id.clone());
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.into_iter().zip(&expected) {
            for (column, expected) in expected.as_object().unwrap().iter().filter(|(column, _)| *column != "image") {
                let found = row.cells.value(column).unwrap_or_default();
                match (found.as_f64(), expected.as_f64()) {
                    // Written as 32-bit floats.
                    (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-6, "{folder}: {column}"),
                    _ => assert_eq!(&found, expected, "{folder}: {column} of row {}", row.id),
                }
            }
            let images = row.values.get(&Modality::IMAGE).map_or(&[][..], Vec::as_slice);
            let content = |source: &Source| match source {
                Source::Bytes(file) => {
                    file.read().unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(images.iter().map(content).collect::<Vec<_>>(), Vec::from_iter(expected["image"].as_str()));
        }
    }
    let split = SplitConfig { column: Some("split".into()), ..SplitConfig::default() };
    let config = ManifestConfig { manifest: "dict".into(), split, ..ManifestConfig::default() };
    let manifest = Manifest::open(&config, &fixtures)?;
    assert_eq!((manifest.rows_in_split(Split::Train).len(), manifest.rows_in_split(Split::Test).len()), (4, 1));
    // A file by itself, and one that is cut.
    let file = fixtures.join("dict/train/data-00000-of-00002.arrow");
    let config = |path: &Path| ManifestConfig { manifest: path.into(), ..ManifestConfig::default() };
    assert_eq!(Manifest::open(&config(&file), Path::new("."))?.rows.len(), 2);
    let folder = tempfile::tempdir()?;
    let bytes = std::fs::read(&file)?;
    for length in [0, 7, 100, 1000, bytes.len() - 200] {
        let cut = folder.path().join("cut.arrow");
        std::fs::write(&cut, &bytes[..length])?;
        let error = Manifest::open(&config(&cut), Path::new(".")).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains("cut.arrow")), "{length}: {error:?}");
    }
    Ok(())
}
