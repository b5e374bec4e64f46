//! The table of unsafe code in docs/reliability.md names every file that has any, with the number of occurrences.
#![allow(missing_docs)]

use std::{collections::BTreeMap, path::Path};

/// Blocks, functions, foreign declarations, implementations and traits that the compiler does not check.
fn count_occurrences(text: &str) -> usize {
    let keyword = ["un", "safe"].concat();
    let is_unsafe = |rest: &str| ["{", "fn", "extern", "impl", "trait"].iter().any(|next| rest.starts_with(next));
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.map(|line| line.split(&keyword).skip(1).filter(|rest| rest.strip_prefix(' ').is_some_and(is_unsafe)).count())
        .sum()
}

fn count_files(folder: &Path, root: &Path, counts: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            count_files(&path, root, counts);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let occurrences = count_occurrences(&std::fs::read_to_string(&path).unwrap());
            if occurrences > 0 {
                counts.insert(path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"), occurrences);
            }
        }
    }
}

#[test]
fn the_table_of_unsafe_code_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let mut found = BTreeMap::new();
    ["crates", "xtask", "benches"].iter().for_each(|folder| count_files(&root.join(folder), &root, &mut found));

    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let section = page.split("## Unsafe code").nth(1).expect("the section `Unsafe code`");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut listed = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells[3].len() > 20, "{row}: a reason is missing");
        listed.insert(cells[1].trim_matches('`').to_owned(), cells[2].parse::<usize>().unwrap());
    }
    assert_eq!(found, listed, "left: the source files; right: the table in docs/reliability.md");
}

#[test]
fn comments_and_names_are_not_counted() {
    let keyword = ["un", "safe"].concat();
    let text = format!(
        "{keyword} {{ a }}\n// {keyword} {{\nlet {keyword}_range = 1;\npub {keyword} fn f() {{ {keyword} {{ b }} }}\n"
    );
    assert_eq!(count_occurrences(&text), 3);
}
