#![doc = include_str!("../README.md")]

mod config;
mod duplicates;
mod error;
mod filter;
mod fusion;
mod payload;
mod query;
mod row;
mod score;
mod sqlite;
mod store;

pub use config::{Distance, Model, Quantization, StoreConfig, VectorConfig};
pub use duplicates::{DuplicateGroup, duplicates};
pub use error::{Error, Result};
pub use filter::{Filter, FilterError};
pub use payload::{FieldValues, GeoPoint, Payload, Scalar};
pub use query::{Answer, Contribution, Example, Hit, Method, Query, RRF_CONSTANT, Search, Step};
pub use row::{Row, Vectors};
pub use sqlite::{SearchSettings, SqliteStore};
pub use store::{
    CheckProblem, CheckReport, Cursor, GraphStats, OnProgress, OptimizeOptions, Optimized, OptimizedGraph, Page, Stats,
    Store, VectorStats, create, open,
};
