//! The functions of `shim.cpp`.

use crate::nccl::CreateBackend;
use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub fn mm_dist_free(text: *mut c_char);
    pub fn mm_dist_torch_version() -> *const c_char;
    pub fn mm_dist_tcp_store(
        host: *const c_char,
        port: u16,
        is_server: bool,
        timeout_ms: i64,
        error: *mut *mut c_char,
    ) -> *mut c_void;
    pub fn mm_dist_prefix_store(store: *const c_void, prefix: *const c_char, error: *mut *mut c_char) -> *mut c_void;
    pub fn mm_dist_store_free(store: *mut c_void);
    pub fn mm_dist_store_set(
        store: *const c_void,
        key: *const c_char,
        value: *const u8,
        size: usize,
        error: *mut *mut c_char,
    );
    pub fn mm_dist_store_get(
        store: *const c_void,
        key: *const c_char,
        size: *mut usize,
        error: *mut *mut c_char,
    ) -> *mut c_char;
    pub fn mm_dist_store_add(store: *const c_void, key: *const c_char, amount: i64, error: *mut *mut c_char) -> i64;
    pub fn mm_dist_gloo(
        store: *const c_void,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        address: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut c_void;
    pub fn mm_dist_group_nccl(
        group: *mut c_void,
        store: *const c_void,
        create: CreateBackend,
        timeout_ms: i64,
        device: c_int,
        name: *const c_char,
        error: *mut *mut c_char,
    );
    pub fn mm_dist_group_free(group: *mut c_void);
    pub fn mm_dist_all_reduce(group: *const c_void, tensor: *mut c_void, operation: c_int, error: *mut *mut c_char);
    pub fn mm_dist_batch_norm(
        group: *const c_void,
        outputs: *const *mut c_void,
        input: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
        eps: f64,
        error: *mut *mut c_char,
    );
    pub fn mm_dist_broadcast(group: *const c_void, tensor: *mut c_void, root: i64, error: *mut *mut c_char);
    pub fn mm_dist_all_gather(
        group: *const c_void,
        outputs: *const *mut c_void,
        count: i64,
        input: *mut c_void,
        error: *mut *mut c_char,
    );
    pub fn mm_dist_barrier(group: *const c_void, error: *mut *mut c_char);
    pub fn mm_dist_reducer(
        group: *const c_void,
        parameters: *const *mut c_void,
        count: i64,
        bucket_bytes: i64,
        error: *mut *mut c_char,
    ) -> *mut c_void;
    pub fn mm_dist_gradient_order(
        loss: *mut c_void,
        parameters: *const *mut c_void,
        count: i64,
        order: *mut i64,
        error: *mut *mut c_char,
    ) -> i64;
    pub fn mm_dist_reducer_prepare(reducer: *mut c_void, loss: *mut c_void, error: *mut *mut c_char);
    pub fn mm_dist_reducer_free(reducer: *mut c_void);
    pub fn mm_dist_profiler_start(error: *mut *mut c_char);
    pub fn mm_dist_profiler_stop(path: *const c_char, error: *mut *mut c_char);
}
