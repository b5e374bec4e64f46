//! Stands in for `backend.rs` without the feature `c10d`: there are no groups of several processes.

use crate::nccl::CreateBackend;
use mm_core::Tensor;
use std::{ffi::c_int, time::Duration};

const DISABLED: &str = "this program was built without the feature c10d of mm-dist, so it trains in one process";

pub enum Store {}

impl Store {
    pub fn connect(_: &str, _: u16, _: bool, _: Duration) -> Result<Self, String> {
        Err(DISABLED.into())
    }

    pub fn prefixed(&self, _: &str) -> Result<Self, String> {
        match *self {}
    }

    pub fn set(&self, _: &str, _: &[u8]) -> Result<(), String> {
        match *self {}
    }

    pub fn get(&self, _: &str) -> Result<Vec<u8>, String> {
        match *self {}
    }

    pub fn add(&self, _: &str, _: i64) -> Result<i64, String> {
        match *self {}
    }
}

pub fn torch_version() -> String {
    String::new()
}

pub enum Gloo {}

impl Gloo {
    pub fn connect(store: &Store, _: usize, _: usize, _: Duration, _: &str) -> Result<Self, String> {
        match *store {}
    }

    pub fn add_nccl(&self, _: &Store, _: CreateBackend, _: Duration, _: usize, _: &str) -> Result<(), String> {
        match *self {}
    }

    pub fn all_reduce(&self, _: &Tensor, _: c_int) -> Result<(), String> {
        match *self {}
    }

    pub fn batch_norm(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: f64) -> Result<[Tensor; 3], String> {
        match *self {}
    }

    pub fn broadcast(&self, _: &Tensor, _: usize) -> Result<(), String> {
        match *self {}
    }

    pub fn all_gather(&self, _: &[Tensor], _: &Tensor) -> Result<(), String> {
        match *self {}
    }

    pub fn barrier(&self) -> Result<(), String> {
        match *self {}
    }
}

pub fn gradient_order(_: &Tensor, _: &[Tensor]) -> Result<Vec<usize>, String> {
    Ok(Vec::new())
}

pub enum Reducer {}

impl Reducer {
    pub fn new(gloo: &Gloo, _: &[&Tensor], _: usize) -> Result<Self, String> {
        match *gloo {}
    }

    pub fn prepare(&self, _: &Tensor) -> Result<(), String> {
        match *self {}
    }
}

pub fn start_profiler() -> Result<(), String> {
    Err("this program was built without the feature c10d of mm-dist, which has the profiler".into())
}

pub fn stop_profiler(_: Option<&str>) -> Result<(), String> {
    Ok(())
}
