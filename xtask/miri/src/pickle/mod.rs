//! The pickle reader of mm-core.

#[path = "../../../../crates/mm-core/src/checkpoint/pickle/globals.rs"]
mod globals;
#[path = "../../../../crates/mm-core/src/checkpoint/pickle/machine.rs"]
mod machine;
#[path = "../../../../crates/mm-core/src/checkpoint/pickle/numpy.rs"]
mod numpy;
#[path = "../../../../crates/mm-core/src/checkpoint/pickle/value.rs"]
mod value;
