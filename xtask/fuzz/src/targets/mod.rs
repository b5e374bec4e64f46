//! The targets, one file each.

pub mod archive;
pub mod audio;
pub mod chat_template;
pub mod fasttext;
pub mod hdf5;
pub mod image;
pub mod model_config;
pub mod npy;
pub mod parquet;
pub mod pickle;
pub mod pipeline;
pub mod safetensors;
pub mod svg;
pub mod table;
pub mod task_config;
pub mod tokenizer;
pub mod word2vec;
