//! libFuzzer's binary: all targets, of which `MM_FUZZ_TARGET` selects one, so that libtorch is linked once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mm_fuzz::{TARGETS, Target, prepare_process, run};
use std::sync::OnceLock;

static SELECTED: OnceLock<Target> = OnceLock::new();

/// The target that the environment names.
fn select() -> Target {
    let wanted = std::env::var("MM_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|t| t.name == wanted).copied().unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("MM_FUZZ_TARGET: found `{wanted}`, expected one of {}", names.join(", "));
        std::process::exit(2)
    })
}

fuzz_target!(
    init: {
        prepare_process();
        SELECTED.get_or_init(select);
    },
    |input: &[u8]| {
        if let Some(Err(text)) = SELECTED.get().map(|target| run(*target, input)) {
            eprintln!("{text}");
            std::process::abort();
        }
    }
);
