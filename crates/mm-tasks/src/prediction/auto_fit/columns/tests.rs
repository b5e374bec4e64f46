use super::*;
use mm_data::TableOptions;

/// The columns that are inferred for the label `y`, and the log.
fn infer(name: &str, text: &str) -> InferredColumns {
    let mut registry = Registry::new();
    registry.register_proposer("tabular", |_| Ok(Vec::new()));
    infer_with(&registry, name, text)
}

fn infer_with(registry: &Registry, name: &str, text: &str) -> InferredColumns {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join(name);
    std::fs::write(&data, text).unwrap();
    let options = FitOptions::new(&data, "y", "out");
    infer_columns(&Table::read(&data, &TableOptions::default()).unwrap(), &options, registry).unwrap()
}

fn csv(header: &str, rows: usize, row: impl Fn(usize) -> String) -> String {
    format!("{header}\n{}", (0..rows).map(|i| row(i) + "\n").collect::<String>())
}

fn tabular(inferred: &InferredColumns) -> &[String] {
    inferred.columns.get("tabular").map_or(&[], Vec::as_slice)
}

#[test]
fn indices_are_no_features() {
    let shuffled = |i: usize| i * 37 % 100;
    let header = ",__index_level_0__,level_0,index,Unnamed: 7,user_id,position,a,y";
    let inferred = infer(
        "t.csv",
        &csv(header, 100, |i| {
            let n = shuffled(i);
            format!("{n},{n},{n},{n},{i},{},{n},{},{}", 5000 + 3 * n, (n * n % 17) as f64 / 4.0, i % 2)
        }),
    );
    assert_eq!(tabular(&inferred), ["a"], "{:?}", inferred.log);
    for name in ["Unnamed: 0", "__index_level_0__", "level_0", "index", "Unnamed: 7"] {
        let line = format!("{name}: left out (the index of a pandas table");
        assert!(inferred.log.iter().any(|l| l.starts_with(&line)), "{line}: {:?}", inferred.log);
    }
    assert!(inferred.log.iter().any(|l| l.starts_with("position: left out (a row number")), "{:?}", inferred.log);
    assert!(inferred.log.iter().any(|l| l.starts_with("user_id: left out (an identifier")), "{:?}", inferred.log);
}

#[test]
fn columns_of_late_rows_are_found_and_missing_values_are_no_categories() {
    let row = |i: usize| {
        let late = if i < 1400 { String::new() } else { format!(",\"z\":{}.5", i % 7) };
        let colour = if i.is_multiple_of(2) { "NA" } else { "red" };
        format!("{{\"x\":{}.25,\"colour\":\"{colour}\",\"empty\":\"nan\",\"y\":{}{late}}}\n", i % 11, i % 2)
    };
    let inferred = infer("t.jsonl", &(0..1500).map(row).collect::<String>());
    let mut found = tabular(&inferred).to_vec();
    found.sort();
    assert_eq!(found, ["colour", "x", "z"], "{:?}", inferred.log);
    assert!(inferred.log.contains(&"empty: left out (empty)".to_owned()), "{:?}", inferred.log);
}

#[test]
fn currency_percent_and_dates_are_numbers() {
    let text = csv("price,share,when,y", 60, |i| {
        format!("\"${},{:03}.50\",{}.5%,2024-{:02}-{:02},{}", i + 1, i * 7 % 1000, i % 9, i % 12 + 1, i % 28 + 1, i % 2)
    });
    let inferred = infer("t.csv", &text);
    assert_eq!(tabular(&inferred), ["price", "share", "when"], "{:?}", inferred.log);
    assert!(inferred.log.contains(&"when: dates (year, month, day), as days".to_owned()), "{:?}", inferred.log);
}

#[test]
fn the_name_chooses_among_image_columns_and_ids_are_none() {
    let text = csv("id,crop,photo,y", 30, |i| format!("{i}.png,c/{i}.png,p/{i}.png,{}", i % 2));
    let inferred = infer("t.csv", &text);
    assert_eq!(inferred.columns["image"], ["photo"]);
    assert!(inferred.log.iter().any(|l| l.contains("crop: left out (image is photo")), "{:?}", inferred.log);
    assert!(inferred.log.iter().any(|l| l.contains("id: left out (an identifier that looks like a file name")));
}

#[test]
fn a_modality_of_another_crate_recognizes_its_column() {
    let mut registry = Registry::new();
    let is_path = |cell: &&Value| cell.pointer("/0/1").is_some_and(Value::is_number);
    registry.register_column_recognizer("trajectory", move |_, cells| cells.iter().all(is_path));
    let row = |i: usize| format!("{{\"path\":[[{i},1],[2,3]],\"note\":\"some words {i}\",\"y\":{}}}\n", i % 2);
    let inferred = infer_with(&registry, "t.jsonl", &(0..40).map(row).collect::<String>());
    assert_eq!(inferred.columns["trajectory"], ["path"], "{:?}", inferred.log);
    assert_eq!(inferred.columns["text"], ["note"], "{:?}", inferred.log);
}
