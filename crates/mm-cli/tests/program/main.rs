//! Tests that run the program: commands, their output and their errors.
#![allow(missing_docs)]

mod alignment;
mod arrow;
mod bucket;
#[path = "../common/mod.rs"]
mod common;
mod datasets;
mod distributed;
mod distributed_tasks;
mod embedding;
mod generation;
mod gradient_caching;
mod index;
mod index_export;
mod index_import;
#[cfg(unix)]
mod index_postgres;
mod models_by_url;
mod prediction;
mod representation;
mod resume;
mod retrieval;
mod shards;
mod storage;
mod urls;
mod word_vectors;

use common::{mm, text};
use serde_json::Value;

/// The standard output of a command that succeeded.
fn ok(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The JSON objects on the standard output of a command that succeeded, one a line.
fn json_lines(output: &std::process::Output) -> Vec<Value> {
    ok(output).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The JSON object on the standard output of a command that succeeded.
fn json(output: &std::process::Output) -> Value {
    serde_json::from_str(ok(output).trim()).unwrap()
}

#[test]
fn help_has_an_example_for_each_command() {
    let mut command = mm_cli::command();
    command.build();
    let pages: Vec<(String, String)> = command
        .get_subcommands_mut()
        .filter(|sub| sub.get_name() != "help")
        .map(|sub| (sub.get_name().to_owned(), sub.render_long_help().to_string()))
        .collect();
    assert!(pages.len() > 20, "{pages:?}");
    for (name, help) in &pages {
        assert!(help.contains("Example") && help.contains(&format!("mm {name}")), "{help}");
    }
    // The program prints the same page.
    let printed = ok(&mm(&["embed", "--help"], &std::env::temp_dir()));
    assert!(printed.contains("mm embed --model runs/first"), "{printed}");
}
