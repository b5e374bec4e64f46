#![doc = include_str!("../README.md")]

mod auth;
mod blocking;
mod cancellation;
mod config;
mod conversation;
mod embed;
mod encode;
mod engine;
mod error;
mod fetch;
mod index;
mod listen;
mod media;
mod routes;
mod server;
mod state;
mod urls;

pub use config::{KeyConfig, Limits, ModelConfig, ServeConfig};
pub use error::{Error, Result};
pub use server::{Server, Stopped};
