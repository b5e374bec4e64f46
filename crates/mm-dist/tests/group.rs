//! Collective operations and averaged gradients between ranks in threads, and what happens when a rank ends.

#![cfg(feature = "c10d")]

use mm_core::{
    DType, Device, Tensor,
    distributed::{SentTensor, map_over_ranks, on_rank_zero, process_group, with_divided_work},
};
use mm_dist::{
    Environment, Error, GradientReducer, Group, Profiler, ReduceOp, Result, current, spawn_local, spawn_local_with,
};
use std::{
    net::TcpListener,
    rc::Rc,
    time::{Duration, Instant},
};

#[test]
fn collective_operations() {
    let results = spawn_local(3, |group| {
        let rank = group.rank() as f64;
        assert_eq!(current().map(|g| g.rank()), Some(group.rank()));
        let own = Tensor::new([rank as f32, 1.0], Device::Cpu)?;
        let sum = group.all_reduce(&own, ReduceOp::Sum)?.to_vec::<f32>()?;
        assert_eq!(own.to_vec::<f32>()?, [rank as f32, 1.0], "the input is not overwritten");
        let extremes = [ReduceOp::Min, ReduceOp::Max].map(|op| group.all_reduce_numbers(&[rank], op).unwrap());
        let second = group.broadcast(&own, 1)?.to_vec::<f32>()?;
        group.barrier()?;
        let texts = group.gather(&"x".repeat(group.rank()))?;
        Ok((sum, extremes, second, texts))
    });
    let expected =
        (vec![3f32, 3.0], [vec![0.0], vec![2.0]], vec![1f32, 1.0], vec![String::new(), "x".into(), "xx".into()]);
    for found in results.unwrap() {
        assert_eq!(found, expected);
    }
    assert!(current().is_none());
}

#[test]
fn work_is_divided_and_its_results_keep_their_order() {
    for (world_size, items) in [(1, 7), (3, 7), (3, 2), (3, 0)] {
        let results = spawn_local(world_size, |group| {
            let mut own = Vec::new();
            let found: Vec<(usize, SentTensor)> = map_over_ranks(0..items, |item| {
                // Each computes alone.
                assert!(process_group().is_none());
                own.push(item);
                let values = [item as f32 / 3.0, f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0];
                Ok::<_, mm_core::Error>((item, SentTensor(Tensor::new(values, Device::Cpu)?.reshape(&[2, 2])?)))
            })?;
            assert!(own.iter().all(|item| item % world_size == group.rank()), "{own:?}");
            let values = found.iter().map(|(item, SentTensor(tensor))| {
                assert_eq!(tensor.shape(), [2, 2]);
                let bits = tensor.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits);
                (*item, bits.collect::<Vec<_>>())
            });
            Ok(values.collect::<Vec<_>>())
        });
        let bits =
            |item: usize| [item as f32 / 3.0, f32::NAN, -0.0, f32::MIN_POSITIVE / 2.0].map(f32::to_bits).to_vec();
        let expected: Vec<_> = (0..items).map(|item| (item, bits(item))).collect();
        assert!(results.unwrap().iter().all(|found| *found == expected));
    }
    // Ranks that divide other items would lose some.
    let results = spawn_local(2, |group| {
        let found: mm_core::Result<Vec<usize>> = map_over_ranks(0..5 + group.rank(), Ok);
        Ok(found.unwrap_err().to_string())
    });
    assert!(results.unwrap()[0].contains("rank 1 divides 6 items, rank 0 5"));
    // An error of one is an error of all.
    let results = spawn_local(2, |_| {
        let found: mm_core::Result<Vec<usize>> = map_over_ranks(0..4, |item| match item {
            3 => Err(mm_core::Error::Sample("item 3 is broken".into())),
            item => Ok(item),
        });
        Ok(found.unwrap_err().to_string())
    });
    let texts = results.unwrap();
    assert!(texts[0].contains("rank 1") && texts[1].contains("item 3 is broken"), "{texts:?}");
}

#[test]
fn an_evaluation_is_divided_though_each_rank_computes_alone() {
    let results = spawn_local(2, |group| {
        let mut own = Vec::new();
        let sums = with_divided_work(|| {
            assert!(process_group().is_none());
            map_over_ranks(0..5, |item| {
                own.push(item);
                // Work inside of work is not divided again.
                let inner: Vec<i32> = map_over_ranks(0..3, Ok::<_, mm_core::Error>)?;
                Ok::<_, mm_core::Error>(item + inner.iter().sum::<i32>())
            })
        })?;
        assert!(own.iter().all(|item| *item as usize % 2 == group.rank()) && own.len() < 4, "{own:?}");
        assert!(process_group().is_some());
        let first = on_rank_zero(|| Ok::<_, mm_core::Error>(group.rank() + 7))?;
        Ok((sums, first))
    });
    assert!(results.unwrap().into_iter().all(|found| found == (vec![3, 4, 5, 6, 7], 7)));
    assert_eq!(on_rank_zero(|| Ok::<_, mm_core::Error>(3)).unwrap(), 3);
}

#[test]
fn ranks_that_differ_are_named() {
    let error = spawn_local(2, |group| {
        let config = if group.rank() == 0 { "epochs = 3\nlr = 0.1" } else { "epochs = 3\nlr = 0.2" };
        group.agree("the config", config)
    });
    let text = error.unwrap_err().to_string();
    assert_eq!(
        text,
        "the config differs between the processes: rank 0 has `lr = 0.1`, rank 1 has `lr = 0.2`; start all with the same"
    );
    let error = spawn_local(2, |group| {
        let rows = Tensor::zeros(&[2, 3 + group.rank() as i64], DType::F32, Device::Cpu)?;
        group.gather_rows(&rows).map(|_| ())
    });
    assert!(error.unwrap_err().to_string().contains("rank 1 has rows of [4] F32, expected [3] F32"));
}

/// Fixed values `[rows, columns]`: threads share libtorch's random number generator.
fn waves(rows: i64, columns: i64, step: f64) -> mm_core::Result<Tensor> {
    Tensor::arange(0, rows * columns, Device::Cpu)?
        .to_dtype(DType::F32)?
        .mul_scalar(step)?
        .sin()?
        .reshape(&[rows, columns])
}

/// CLIP's loss of embeddings `[rows, width]`.
fn contrastive(a: &Tensor, b: &Tensor, scale: &Tensor) -> mm_core::Result<Tensor> {
    let logits = a.normalize()?.matmul(&b.normalize()?.transpose(0, 1)?)?.mul(scale)?;
    let target = Tensor::arange(0, a.size(0)?, Device::Cpu)?;
    let loss = |logits: &Tensor| logits.cross_entropy(&target, -100, 0.0);
    loss(&logits)?.add(&loss(&logits.transpose(0, 1)?)?)?.mul_scalar(0.5)
}

/// Two towers and a temperature, with fixed values.
fn parameters() -> mm_core::Result<Vec<Tensor>> {
    let scale = Tensor::new([3f32], Device::Cpu)?;
    [waves(5, 4, 0.7)?, waves(5, 4, 1.3)?, scale].into_iter().map(|t| t.detach()?.set_requires_grad(true)).collect()
}

/// Fifty steps of gradient descent of a rank that has the rows from `from` to `until`.
fn train(group: Option<&Rc<Group>>, [from, until]: [i64; 2], count: i64) -> Result<Vec<Vec<f32>>> {
    let part = |step| waves(count, 5, step)?.narrow(0, from, until - from);
    let (images, texts) = (part(2.1)?, part(3.7)?);
    let parameters = parameters()?;
    let reducer = group.map(|group| GradientReducer::new(group, parameters.clone())).transpose()?;
    for _ in 0..50 {
        let (mut a, mut b) = (images.matmul(&parameters[0])?, texts.matmul(&parameters[1])?);
        if let Some(group) = group {
            (a, b) = (group.gather_rows(&a)?.values, group.gather_rows(&b)?.values);
        }
        let loss = contrastive(&a, &b, &parameters[2])?;
        match &reducer {
            Some(reducer) => reducer.backward(Some(&loss))?,
            None => loss.backward()?,
        }
        for parameter in &parameters {
            let gradient = parameter.grad().expect("every parameter is used");
            parameter.scale_add_(1.0, &gradient, -0.5)?;
            gradient.mul_scalar_(0.0)?;
        }
    }
    Ok(parameters.iter().map(Tensor::to_vec).collect::<mm_core::Result<_>>()?)
}

#[test]
fn several_ranks_learn_what_one_process_does() {
    const ROWS: i64 = 13;
    let alone = train(None, [0, ROWS], ROWS).unwrap();
    // Parts of different sizes, one of them empty.
    for parts in [vec![[0, 7], [7, 13]], vec![[0, 3], [3, 3], [3, 13]]] {
        let together = spawn_local(parts.len(), |group| train(Some(group), parts[group.rank()], ROWS)).unwrap();
        for rank in &together {
            assert_eq!(rank, &together[0], "bit for bit the same in all ranks");
        }
        for (a, b) in alone.iter().flatten().zip(together[0].iter().flatten()) {
            assert!((a - b).abs() < 1e-5, "{a} alone, {b} in {} ranks", parts.len());
        }
    }
    let start = parameters().unwrap()[0].to_vec::<f32>().unwrap();
    assert!(alone[0].iter().zip(&start).any(|(a, b)| (a - b).abs() > 0.05), "training changes the weights");
}

#[test]
fn a_rank_without_a_loss_counts_as_zero_and_steps_accumulate() {
    let gradients = spawn_local(2, |group| {
        let used = Tensor::new([1f32, 2.0], Device::Cpu)?.set_requires_grad(true)?;
        let unused = Tensor::new([5f32], Device::Cpu)?.set_requires_grad(true)?;
        let reducer = GradientReducer::new(group, vec![used.clone(), unused.clone()])?;
        for _ in 0..2 {
            let loss = (group.rank() == 1).then(|| used.mul_scalar(4.0)?.sum()).transpose()?;
            reducer.backward(loss.as_ref())?;
        }
        Ok((used.grad().map(|g| g.to_vec::<f32>()).transpose()?, unused.grad().is_some()))
    });
    for (used, unused) in gradients.unwrap() {
        assert_eq!((used, unused), (Some(vec![4.0, 4.0]), false), "twice the mean of 0 and 4");
    }
}

fn environment(rank: usize, port: u16) -> Environment {
    Environment { timeout: Duration::from_secs(2), ..Environment::local(rank, 2, port) }
}

/// The texts of the errors of three ranks, empty for those without.
fn errors(seconds: u64, run: impl Fn(&Group) -> Result<()> + Sync) -> Vec<String> {
    let results = spawn_local_with(3, Duration::from_secs(seconds), |group| run(group)).unwrap();
    results.into_iter().map(|result| result.err().map(|e| e.to_string()).unwrap_or_default()).collect()
}

#[test]
fn a_rank_that_ends_is_named_by_the_others() {
    for dies in [0, 1, 2] {
        let errors = errors(30, |group| {
            group.barrier()?;
            if group.rank() == dies {
                return Ok(());
            }
            group.all_reduce_numbers(&[1.0], ReduceOp::Sum).map(drop)
        });
        for (rank, text) in errors.iter().enumerate() {
            assert_eq!(rank == dies, text.is_empty(), "rank {rank}: {text}");
            let named = text.contains(&format!("rank {dies}"));
            assert!(rank == dies || named, "rank {dies} ended, rank {rank} says: {text}");
        }
    }
}

#[test]
fn the_error_with_which_a_rank_ends_is_that_of_the_others() {
    for fails in [0, 2] {
        let errors = errors(30, |group| {
            group.barrier()?;
            if group.rank() == fails {
                group.report_failure("the table is empty");
                return Ok(());
            }
            let result = group.all_reduce_numbers(&[1.0], ReduceOp::Sum).map(drop);
            assert!(matches!(result, Err(Error::Ended { peer, .. }) if peer == fails), "{result:?}");
            result
        });
        for (rank, text) in errors.iter().enumerate().filter(|(rank, _)| *rank != fails) {
            assert_eq!(*text, format!("rank {rank} ends with rank {fails}, which failed: the table is empty"));
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_by_the_others() {
    let errors = errors(3, |group| {
        group.barrier()?;
        if group.rank() == 1 {
            std::thread::sleep(Duration::from_secs(10));
            return Ok(());
        }
        let begun = Instant::now();
        let result = group.all_reduce_numbers(&[1.0], ReduceOp::Sum).map(drop);
        assert!(begun.elapsed() < Duration::from_secs(3 + 5), "{:?}", begun.elapsed());
        result
    });
    assert_eq!(errors[1], "");
    for text in [&errors[0], &errors[2]] {
        assert!(text.contains("all_reduce failed: rank 1 did not come to it within the timeout"), "{text}");
    }
}

#[test]
fn a_group_that_does_not_form_says_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = Group::join(&environment(1, port)).unwrap_err().to_string();
    assert!(text.contains(&format!("rank 1 of 2 could not join the process group at 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("start rank 0 as well"), "{text}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    let text = Group::join(&environment(0, taken)).unwrap_err().to_string();
    assert!(text.contains("set MASTER_PORT to a free one"), "{text}");
    // A program that takes connections and says nothing.
    let begun = Instant::now();
    let silent = Environment { timeout: Duration::from_secs(2), ..environment(1, taken) };
    let text = Group::join(&silent).unwrap_err().to_string();
    assert!(text.contains("did not answer within 2 s"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn the_groups_of_a_process_belong_to_one_thread() {
    let refused = spawn_local(2, |group| {
        let port = 1; // Not reached.
        group.barrier()?;
        Ok(matches!(Group::join(&environment(0, port)), Err(Error::Thread)))
    });
    assert_eq!(refused.unwrap(), [true, true]);
}

/// The events of a Chrome trace with a name that begins so: start and end in microseconds.
fn intervals(trace: &serde_json::Value, name: &str) -> Vec<(f64, f64)> {
    let events = trace["traceEvents"].as_array().unwrap().iter();
    let named = events.filter(|e| e["ph"] == "X" && e["name"].as_str().is_some_and(|n| n.starts_with(name)));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    named.map(|e| (number(&e["ts"]), number(&e["ts"]) + number(&e["dur"]))).collect()
}

#[test]
fn gradients_are_sent_while_the_backward_pass_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rank-0.pt.trace.json");
    spawn_local(2, |group| {
        // Eight layers of 4 MB: several buckets.
        let layers: Vec<Tensor> = (0..8)
            .map(|_| Tensor::full(&[1024, 1024], 1e-3, DType::F32, Device::Cpu)?.set_requires_grad(true))
            .collect::<Result<_, mm_core::Error>>()?;
        // In an order that says nothing about that of the backward pass.
        let parameters = [3, 5, 7, 4, 1, 6, 2, 0].map(|layer: usize| layers[layer].clone());
        let reducer = GradientReducer::new(group, parameters.to_vec())?;
        let step = || {
            let mut x = Tensor::full(&[256, 1024], 1.0, DType::F32, Device::Cpu)?;
            for layer in &layers {
                x = x.matmul(layer)?;
            }
            reducer.backward(Some(&x.mean()?))
        };
        step()?;
        let profiler = (group.rank() == 0).then(Profiler::start).transpose()?;
        step()?;
        profiler.map(|profiler| profiler.save(&path)).transpose()?;
        group.barrier()
    })
    .unwrap();
    let trace = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let sent = intervals(&trace, "gloo:all_reduce");
    let computed = intervals(&trace, "autograd::engine::evaluate_function: MmBackward0");
    assert!(sent.len() >= 2 && computed.len() == 8, "{sent:?} {computed:?}");
    let first_sent = sent.iter().map(|(start, _)| *start).fold(f64::MAX, f64::min);
    // The bucket of the last layer, whose gradient is computed first.
    let computed_before = computed.iter().filter(|(_, end)| *end < first_sent).count();
    assert!(computed_before <= 4, "sent {sent:?}, computed {computed:?}");
}
