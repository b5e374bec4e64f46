//! Tests that run the program: commands, their output and their errors.
#![allow(missing_docs)]

mod alignment;
#[path = "../common/mod.rs"]
mod common;
mod datasets;
mod embedding;
mod generation;
mod index;
mod prediction;
mod representation;
mod resume;
mod retrieval;
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
    let folder = std::env::temp_dir();
    let command = mm_cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).filter(|n| *n != "help").collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let help = ok(&mm(&[name, "--help"], &folder));
        assert!(help.contains("Example") && help.contains(&format!("mm {name}")), "{help}");
    }
}
