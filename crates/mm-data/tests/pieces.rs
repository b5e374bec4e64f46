//! Tables that are read in pieces have the rows, the columns and the errors of those that are read as a whole.
#![allow(missing_docs)]

use mm_core::{Modality, Source};
use mm_data::{ColumnInference, Manifest, ManifestConfig, ManifestPieces, PieceSize, Row, Table};
use serde_json::{Value, json};
use std::{fmt::Write as _, io::Write as _, path::Path};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A PNG of two red pixels, as base64.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAD0lEQVR4nGP8z8DAwMAAAAYIAQHLR3Z1AAAAAElFTkSuQmCC";

fn pieces_of(rows: usize) -> PieceSize {
    PieceSize { rows, ..PieceSize::default() }
}

fn config(name: &str) -> ManifestConfig {
    ManifestConfig { manifest: name.into(), ..ManifestConfig::default() }
}

fn open(config: &ManifestConfig, folder: &Path, size: PieceSize) -> mm_data::Result<ManifestPieces> {
    ManifestPieces::open(config, folder, &ColumnInference::default(), size)
}

/// What a row holds, the bytes of the files inside the table included.
fn described(row: &Row) -> Result<String> {
    let mut text = format!("{row:?} ");
    for source in row.values.iter().flat_map(|(_, values)| values) {
        if let Source::Bytes(file) = source {
            write!(text, "{:?} ", file.read()?)?;
        }
    }
    // Where a file lies in its temporary file is another place in each piece.
    let cells = row.cells.columns().map(|column| (column, row.cells.value(column).unwrap_or_default()));
    let kept = cells.filter(|(_, cell)| !mm_data::is_stored_file(cell));
    Ok(text + &Value::Object(kept.map(|(column, cell)| (column.to_owned(), cell)).collect()).to_string())
}

fn rows_in_pieces(data: &ManifestPieces) -> Result<(Vec<String>, Vec<usize>)> {
    let (mut rows, mut sizes) = (Vec::new(), Vec::new());
    data.for_each_piece(true, |piece| {
        sizes.push(piece.rows.len());
        piece.rows.iter().try_for_each(|row| {
            rows.push(described(row)?);
            Ok::<(), Failed>(())
        })
    })
    .map_err(|e: Failed| e.0)?;
    Ok((rows, sizes))
}

/// Any error of a test.
struct Failed(Box<dyn std::error::Error>);

impl From<mm_data::Error> for Failed {
    fn from(error: mm_data::Error) -> Self {
        Self(error.into())
    }
}

impl From<Box<dyn std::error::Error>> for Failed {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        Self(error)
    }
}

/// Compares all rows in pieces of several sizes with the whole table.
fn assert_same(config: &ManifestConfig, folder: &Path) -> Result<Manifest> {
    let whole = Manifest::open(config, folder)?;
    let expected = whole.rows.iter().map(described).collect::<Result<Vec<_>>>()?;
    let bytes = PieceSize { rows: usize::MAX, bytes: 200 };
    for size in [pieces_of(1), pieces_of(2), pieces_of(3), bytes, PieceSize::default()] {
        let name = config.manifest.display();
        let data = open(config, folder, size)?;
        assert_eq!(data.columns(), &whole.columns, "{name}: {size:?}");
        let (found, sizes) = rows_in_pieces(&data)?;
        assert_eq!(found, expected, "{name}: {size:?}");
        assert!(sizes.iter().all(|rows| *rows <= size.rows), "{name}: {sizes:?}");
        let mut count = 0;
        data.for_each_piece(false, |piece| {
            let values = |row: &Row| row.values.iter().map(|(m, values)| (m.clone(), values.len())).collect::<Vec<_>>();
            for row in &piece.rows {
                assert_eq!(values(row), values(&whole.rows[count]), "{name}: {size:?}");
                count += 1;
            }
            Ok::<(), mm_data::Error>(())
        })?;
        assert_eq!(count, expected.len(), "{name}: {size:?}");
    }
    Ok(whole)
}

/// Rows with nulls, missing values, lists, another type from some row on, and a column that only late rows have.
fn lines() -> String {
    let rows = [
        json!({"id": "a", "text": "a dog", "image": "a.png", "label": "NA", "n": 1}),
        json!({"id": "b", "text": null, "image": null, "label": "x"}),
        json!({"id": "c", "text": ["two", "captions of it"], "image": ["b.png", "c.png"], "label": "None", "n": 2.5}),
        json!({"id": "d", "text": "", "image": "d.png", "n": "many"}),
        json!({"id": "e", "text": 7, "image": {"file": "e.png", "language": "en"}, "late": true}),
        json!({"id": 6, "text": {"no": "text"}, "image": "f.png", "late": [1, {"deep": null}]}),
        json!({"id": "g", "text": "großes Haus\n", "n": 18_446_744_073_709_551_615_u64}),
    ];
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    lines.join("\n\n") + "\n" + r#"{"id": "h", "text": "b c", "n": NaN, "large": 18446744073709551616}"#
}

#[test]
fn json_lines_in_pieces_are_the_whole_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    std::fs::write(root.join("a.jsonl"), lines())?;
    assert_eq!(assert_same(&config("a.jsonl"), root)?.rows.len(), 8);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines().as_bytes())?;
    std::fs::write(root.join("a.jsonl.gz"), gzip.finish()?)?;
    assert_same(&config("a.jsonl.gz"), root)?;
    let list: Vec<Value> = lines().lines().take(13).filter_map(|line| serde_json::from_str(line).ok()).collect();
    for name in ["list.json", "list.jsonl"] {
        std::fs::write(root.join(name), Value::from(list.clone()).to_string())?;
        assert_eq!(assert_same(&config(name), root)?.rows.len(), 7);
    }
    let pictures = [
        json!({"id": "a", "picture": PNG}),
        json!({"id": "b", "picture": null}),
        json!({"id": "c", "picture": {"bytes": PNG, "path": "red.png"}}),
        json!({"id": "d", "picture": [PNG, format!("data:image/png;base64,{PNG}")]}),
    ];
    std::fs::write(root.join("p.jsonl"), pictures.map(|row| row.to_string()).join("\n"))?;
    assert_same(&config("p.jsonl"), root)?;
    // Two files as one table; their ids are not unique.
    let mut both = config("{a,p}.jsonl");
    both.columns.id = Some(String::new());
    assert_eq!(assert_same(&both, root)?.rows.len(), 12);
    Ok(())
}

#[test]
fn delimited_tables_in_pieces_are_the_whole_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let csv = format!("id;text;picture\n1;\"a dog\nin two lines\";\n2;NA;{PNG}\n3;x;{PNG}\n4;;\n5;größe;\n");
    std::fs::write(root.join("a.csv"), &csv)?;
    assert_eq!(assert_same(&config("a.csv"), root)?.rows.len(), 5);
    let (tsv, ..) = encoding_rs::WINDOWS_1252.encode("id\ttext\n1\tgröße und mehr\n2\tcafé au lait\n3\tn/a\n");
    std::fs::write(root.join("a.tsv"), &tsv)?;
    assert_same(&ManifestConfig { encoding: Some("windows-1252".into()), ..config("a.tsv") }, root)?;
    let zstd = zstd::encode_all(csv.as_bytes(), 1)?;
    std::fs::write(root.join("a.csv.zst"), zstd)?;
    let only_x = ManifestConfig { missing_values: Some(vec!["x".into()]), ..config("a.csv.zst") };
    assert!(!assert_same(&only_x, root)?.rows[2].values.contains_key(&Modality::TEXT));
    Ok(())
}

#[test]
fn parquet_arrow_and_folders_in_pieces_are_the_whole_table() -> Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    assert_same(&config("images.parquet"), &fixtures)?;
    for column in ["raw", "views"] {
        let mut bound = config("images.parquet");
        bound.columns.modalities.insert("image".into(), column.into());
        assert_same(&bound, &fixtures)?;
    }
    for name in ["dict", "repository", "dict/train/data-00000-of-00002.arrow"] {
        assert_same(&config(name), &fixtures.join("datasets"))?;
    }
    Ok(())
}

/// More rows than are inspected: what a column is, is inferred from the same cells.
#[test]
fn columns_are_inferred_from_all_pieces() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = |i: usize| match i {
        0..4000 => format!("{{\"note\":\"a b c\",\"n\":{i}}}\n"),
        _ => format!("{{\"note\":\"a b c\",\"picture\":\"{i}.png\",\"label\":\"x\",\"other\":{}}}\n", i % 7),
    };
    std::fs::write(folder.path().join("a.jsonl"), (0..4090).map(row).collect::<String>())?;
    let whole = Manifest::open(&config("a.jsonl"), folder.path())?;
    assert!(whole.columns.modalities.contains_key("image"));
    for rows in [7, 1000, 5000] {
        assert_eq!(open(&config("a.jsonl"), folder.path(), pieces_of(rows))?.columns(), &whole.columns, "{rows}");
    }
    Ok(())
}

#[test]
fn errors_are_those_of_the_whole_table() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let good = "{\"id\": 1, \"text\": \"a dog\"}\n".repeat(3);
    let damaged = format!("{{\"id\": 2, \"picture\": \"data:image/png;base64,{PNG}!\"}}\n");
    for (name, text) in [
        ("a.jsonl", format!("{good}\n[1]\n")),
        ("a.jsonl", format!("{good}{{\"x\": 1, \"x\": 2}}\n")),
        ("a.jsonl", format!("{good}{damaged}")),
        ("a.jsonl", String::new()),
        ("a.json", "\n\n[{\"a\": 1},\n 2]".to_owned()),
        ("a.csv", "id,text\n1,a dog\n2,a cat\n3,a, b\n".to_owned()),
        ("a.csv", format!("id,text\n1,a dog\n2,{}\0\n", "a cat\n3,".repeat(20_000))),
        ("a.csv", "text\n".to_owned()),
        ("a.csv", "n\n1\n2\n".to_owned()),
        ("a.parquet", "PAR1".to_owned()),
        ("a.arrow", "ARROW1".to_owned()),
        ("a.xlsx", String::new()),
    ] {
        std::fs::write(root.join(name), text)?;
        let whole = Manifest::open(&config(name), root).err().map(|e| e.to_string());
        assert!(whole.is_some(), "{name}");
        for rows in [1, 2, 1000] {
            let data = open(&config(name), root, pieces_of(rows));
            assert_eq!(data.err().map(|e| e.to_string()), whole, "{name}: {rows}");
        }
    }
    std::fs::write(root.join("a.csv"), b"id,text\n1,a dog\n2,caf\xe9\n")?;
    let error = open(&config("a.csv"), root, pieces_of(1)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("not valid UTF-8 (first at byte 21)"), "{error}");
    // A row without an id comes after those before it.
    std::fs::write(root.join("a.csv"), "id,text\n1,a dog\n2,a cat\n3,a b\n,c d\n")?;
    let (data, mut rows) = (open(&config("a.csv"), root, pieces_of(3))?, 0);
    let refused = data.for_each_piece(false, |piece| {
        rows += piece.rows.len();
        Ok::<(), mm_data::Error>(())
    });
    let whole = Manifest::open(&config("a.csv"), root).err().map(|e| e.to_string());
    assert_eq!((rows, refused.err().map(|e| e.to_string())), (3, whole));
    let split = ManifestConfig { valid: Some("b.csv".into()), ..config("a.csv") };
    assert!(open(&split, root, pieces_of(1)).is_err_and(|e| e.to_string().contains("expected one manifest")));
    Ok(())
}

/// The rows of every format one by one, and the error of whoever takes them.
#[test]
fn rows_are_passed_on_one_by_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("a.jsonl"), "{\"a\": \"NA\"}\n\n{\"a\": 2}\n")?;
    std::fs::write(folder.path().join("a.csv"), "a\nNA\n2\n")?;
    for name in ["a.jsonl", "a.csv"] {
        let mut rows = Vec::new();
        Table::for_each_row(&folder.path().join(name), |row| {
            rows.push(row["a"].clone());
            Ok::<(), mm_data::Error>(())
        })?;
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0], "NA", "{name}");
        let refused = Table::for_each_row(&folder.path().join(name), |_| Err(mm_data::Error::Config("enough".into())));
        assert_eq!(refused.err().map(|e| e.to_string()).as_deref(), Some("enough"));
    }
    Ok(())
}
