//! Generated text: `mm answer`, `mm caption`, `mm transcribe` and `mm chat`, with tiny checkpoints of random weights
//! and with runs that are trained here.

mod answer;
mod caption;
mod chat;
mod constraints;
mod finetuning;
mod inspect;
mod training;
mod transcribe;

use crate::{common, common::mm, json_lines};
use serde_json::Value;
use std::path::Path;

/// The path of a test fixture of mm-reason.
fn fixture(name: &str) -> String {
    common::fixture("mm-reason", name).to_str().unwrap().to_owned()
}

/// The JSON objects that a command prints, one a line.
fn lines(arguments: &[&str], folder: &Path) -> Vec<Value> {
    json_lines(&mm(arguments, folder))
}
