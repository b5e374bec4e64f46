#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! A [`Manifest`] names the files (an [`InMemoryDataset`] holds values in memory), [`decode`] reads them, a
//! [`Processor`](mm_core::Processor) turns each value into a tensor, and a [`Loader`] makes batches of them in worker
//! threads ahead of the model, in an order that depends only on the seed.

pub mod augment;
mod cache;
mod dataset;
pub mod datasets;
pub mod decode;
mod error;
mod fetch;
mod file_type;
mod loader;
mod manifest;
mod notice;
mod npy;
mod output_folder;
mod processors;
mod shards;
mod source;
pub mod transform;
mod truncation;

pub use cache::{CacheKey, CachedProcessor, TensorCache};
pub use dataset::{Dataset, InMemoryDataset};
pub use error::{Error, Result};
pub use fetch::{UrlFetcher, file_size, is_remote, local_copy, local_folder, open_file, release_copy, set_url_fetcher};
pub use file_type::{FILE_EXTENSIONS, is_video_container};
pub use loader::{
    Batch, Curriculum, Epoch, ErrorPolicy, FailedSample, Loader, LoaderBuilder, LoaderConfig, ModalityBatch,
    catching_panics, collate, group_rows_by_item, process_catching_panics,
};
pub use manifest::{
    Cells, ColumnBinding, ColumnInference, Columns, Manifest, ManifestConfig, ManifestPieces, PieceSize, Row,
    RowValues, Split, SplitConfig, Table, TableOptions, cell_text, column_name_rank, existing_files, expand_braces,
    file_modality, is_dataset_folder, is_id_name, is_index_name, is_stored_file, row_key,
};
pub use npy::{npy_header, npy_shape, read_npy, read_npy_rows, write_npy};
pub use output_folder::{OutputFolder, open_output_folder};
pub use processors::{AudioProcessor, AudioProcessorConfig, ImageProcessor, ImageProcessorConfig, VideoProcessor};
pub use shards::{ShardLimits, WrittenShards, write_shards};
pub use source::{decode_audio_source, decode_image_source, parse_source, source_name, with_path};
pub use truncation::{note_truncated, take_truncated};
