//! One modality becomes features.
//!
//! [`Pretrained`] takes a folder as `huggingface_hub` or `sentence-transformers` left it and gives an encoder with its own
//! pre-processing; [`audio`] holds a tower that learns speech from nothing; [`register`] makes them all usable from a config file.
//!
//! ```no_run
//! let model = mm_repr::Pretrained::load("all-MiniLM-L6-v2".as_ref())?;
//! let vectors = model.encode(&[mm_core::Source::Text("a drawing of a dog".into())])?;
//! assert_eq!(vectors.shape(), [1, 384]);
//! # Ok::<(), mm_repr::Error>(())
//! ```

pub mod adversarial;
pub mod audio;
mod error;
pub mod family;
pub mod generative;
pub mod image;
mod joint;
pub mod learners;
mod model_paths;
mod pretrained;
mod propose;
mod register;
pub mod text;
pub mod vector;
pub mod video;
pub mod word2vec;

pub use error::{Error, Result};
pub use family::{ContrastiveHead, LoadOptions, Network, Tower};
pub use joint::blip::{BLIP_VISION_DEFAULTS, BLIP_VISION_VARIANT, BlipTextConfig, blip_vision_weight_map};
pub use learners::LearnerRegistry;
pub use model_paths::{ModelPaths, copy_model_files, merge_adapter};
pub use pretrained::{Pretrained, families, locate};
pub use register::register;
