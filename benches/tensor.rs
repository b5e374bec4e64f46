//! Overhead of mm_core's tensor over tch's for small operations. The difference should stay below 100 ns.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use mm_core::{DType, Device, Tensor};

fn small_operation(c: &mut Criterion) {
    let (a, b) =
        (Tensor::ones(&[4], DType::F32, Device::Cpu).unwrap(), Tensor::ones(&[4], DType::F32, Device::Cpu).unwrap());
    let (raw_a, raw_b) = (a.as_tch().shallow_clone(), b.as_tch().shallow_clone());
    let mut group = c.benchmark_group("add of four values");
    group.bench_function("tch", |bench| bench.iter(|| raw_a.f_add(&raw_b).unwrap()));
    group.bench_function("mm_core", |bench| bench.iter(|| (&a + &b).unwrap()));
    group.finish();
    let mut group = c.benchmark_group("linear of four values");
    let (x, w) = (
        Tensor::ones(&[1, 4], DType::F32, Device::Cpu).unwrap(),
        Tensor::ones(&[4, 4], DType::F32, Device::Cpu).unwrap(),
    );
    let (raw_x, raw_w) = (x.as_tch().shallow_clone(), w.as_tch().shallow_clone());
    group.bench_function("tch", |bench| bench.iter(|| raw_x.f_linear::<tch::Tensor>(&raw_w, None).unwrap()));
    group.bench_function("mm_core", |bench| bench.iter(|| x.linear(&w, None).unwrap()));
    group.finish();
}

criterion_group!(benches, small_operation);
criterion_main!(benches);
