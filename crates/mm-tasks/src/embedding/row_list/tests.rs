use super::*;
use mm_data::{ColumnInference, ManifestConfig, PieceSize};
use std::path::Path;

fn open(folder: &Path) -> ManifestPieces {
    let config = ManifestConfig { manifest: "data.csv".into(), ..ManifestConfig::default() };
    let size = PieceSize { rows: 3, ..PieceSize::default() };
    ManifestPieces::open(&config, folder, &ColumnInference::default(), size).unwrap()
}

/// The first row with an id of an earlier one is named, whatever the number of hashes that are compared at a time.
#[test]
fn ids_that_occur_twice_are_found_as_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let ids = |repeated: &[(usize, usize)]| {
        let mut ids: Vec<String> = (0..40).map(|id| format!("id {id}")).collect();
        for (row, of) in repeated {
            ids[*row] = ids[*of].clone();
        }
        ids
    };
    for repeated in
        [&[][..], &[(39, 0)], &[(20, 3), (12, 11), (30, 29)], &[(9, 8), (10, 8), (11, 8)], &[(5, 4), (7, 6)]]
    {
        let lines: String = ids(repeated).iter().map(|id| format!("{id},some words\n")).collect();
        std::fs::write(folder.path().join("data.csv"), format!("id,text\n{lines}")).unwrap();
        let config = ManifestConfig { manifest: "data.csv".into(), ..ManifestConfig::default() };
        let expected = Manifest::open(&config, folder.path()).err().map(|e| e.to_string());
        assert_eq!(expected.is_some(), !repeated.is_empty());
        for max_hashes in [1, 2, 7, 100] {
            let found = RowList::read_hashing(open(folder.path()), max_hashes).err().map(|e| e.to_string());
            assert_eq!(found, expected, "{repeated:?}, {max_hashes}");
        }
    }
}

#[test]
fn an_id_that_occurs_twice_goes_before_what_is_wrong_with_a_later_row() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("id,text\n1,a b\n2,c d\n1,e f\n,g h\n", "row 3: the id `1` was already used in row 1"),
        ("id,text\n1,a b\n,c d\n1,e f\n2,g h\n", "row 2: column `id` is empty"),
    ] {
        std::fs::write(folder.path().join("data.csv"), text).unwrap();
        let error = RowList::read(open(folder.path())).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn rows_are_listed_with_their_values() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.csv"), "text,image\na b,0.png\n,1.png\nc d,\n").unwrap();
    let list = RowList::read(open(folder.path())).unwrap();
    let modalities = [Modality::TEXT, Modality::IMAGE, Modality::AUDIO];
    assert_eq!(modalities.each_ref().map(|modality| list.entries_of(modality)), [3, 3, 0]);
    let entries = list.entries(&modalities[..2]).map(|entry| {
        let Entry { index, id, row, modality, value } = entry.unwrap();
        format!("{index} {id} {row} {modality} {value:?}")
    });
    let expected = [
        "0 1 1 text Some(0)",
        "1 2 2 text None",
        "2 3 3 text Some(0)",
        "3 1 1 image Some(0)",
        "4 2 2 image Some(0)",
        "5 3 3 image None",
    ];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}
