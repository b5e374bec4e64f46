//! The program `mm`, with the modalities that ship with it.

use std::process::ExitCode;

fn main() -> ExitCode {
    mm_cli::run(|_| {})
}
