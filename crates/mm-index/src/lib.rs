#![doc = include_str!("../README.md")]

mod check;
mod checksum;
mod config;
mod duplicates;
mod error;
mod filter;
mod fusion;
mod location;
mod payload;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
mod recommend;
mod row;
mod score;
mod search;
mod settings;
mod sqlite;
mod store;
mod words;

pub use config::{Distance, Model, Quantization, StoreConfig, VectorConfig};
pub use duplicates::{DuplicateGroup, duplicates};
pub use error::{Error, Result};
pub use filter::{Filter, FilterError};
pub use location::{create, exists, open, without_password};
pub use payload::{FieldValues, GeoPoint, Payload, Scalar};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use query::{Answer, Contribution, Example, Hit, Method, Query, RRF_CONSTANT, Search, Step};
pub use row::{Row, Vectors};
pub use settings::SearchSettings;
pub use sqlite::SqliteStore;
pub use store::{
    CheckProblem, CheckReport, Cursor, GraphStats, OnProgress, OptimizeOptions, Optimized, OptimizedGraph, Page, Stats,
    Store, VectorStats,
};
