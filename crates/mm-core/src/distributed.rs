//! Processes that train together, as layers and losses see them.
//!
//! A layer or a loss that depends on all rows of a batch asks for [`process_group`], and the functions here compute its
//! sums, means and random numbers over the rows of all processes; with one process they are the plain operations.
//! mm-dist implements [`ProcessGroup`].
//!
//! The gradients of the processes are averaged after the backward pass. Where every process computes the same loss from
//! values that [`sum_over_ranks`], [`mean_over_rows`] or [`gather_rows`] returned, that average is the gradient that one
//! process has of the whole batch.

use crate::{DType, Device, Error, Result, Tensor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use std::{cell::RefCell, rc::Rc, thread::LocalKey};

/// A group of processes. All of them call the same operations in the same order.
pub trait ProcessGroup {
    /// Index of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// The sum of the processes' tensors, which have the same shape; without a gradient.
    ///
    /// # Errors
    /// When a process ended or does not come; so in all operations.
    fn all_reduce(&self, tensor: &Tensor) -> Result<Tensor>;

    /// Batch normalization of `[rows, channels, …]` by the statistics of the rows of all processes, all of which run its
    /// backward pass: the output, and the mean and the unbiased variance of each channel.
    fn batch_norm(&self, input: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<[Tensor; 3]>;

    /// The tensor of rank 0, in all processes; it has the same shape in all.
    fn broadcast(&self, tensor: &Tensor) -> Result<Tensor>;

    /// The rows of all processes, those of rank 0 first, and how many each has; the gradient of a process's own rows
    /// flows back, multiplied by the number of processes.
    fn gather_rows(&self, rows: &Tensor) -> Result<(Tensor, Vec<usize>)>;

    /// The processes' texts, in their order.
    fn gather_text(&self, text: &str) -> Result<Vec<String>>;

    /// Waits for all processes.
    fn barrier(&self) -> Result<()>;
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn ProcessGroup>>> = const { RefCell::new(None) };
    /// Whose rank 0 draws for functions that run in every process with the rows of all.
    static SHARED_DRAWS: RefCell<Option<Rc<dyn ProcessGroup>>> = const { RefCell::new(None) };
    /// Who divides the work of [`map_over_ranks`] where each process computes alone otherwise.
    static DIVIDES_WORK: RefCell<Option<Rc<dyn ProcessGroup>>> = const { RefCell::new(None) };
}

/// The processes that train together with this one; `None` where it computes alone.
pub fn process_group() -> Option<Rc<dyn ProcessGroup>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs a function with another [`process_group`]; with `None` it computes alone, for instance an evaluation.
pub fn with_process_group<T>(group: Option<Rc<dyn ProcessGroup>>, run: impl FnOnce() -> T) -> T {
    let _restore = Restore::after_setting(&CURRENT, group);
    run()
}

/// Runs a function that each process calls with the rows of all: it computes alone, and what it draws for the rows
/// ([`rand_rows`], [`randn_rows`], [`shared_random`]) is drawn by rank 0.
pub fn with_rows_of_all<T>(run: impl FnOnce() -> T) -> T {
    let group = process_group().or_else(|| SHARED_DRAWS.with_borrow(Clone::clone));
    let _restore = Restore::after_setting(&SHARED_DRAWS, group);
    with_process_group(None, run)
}

/// Runs a function that each process calls alike, for instance an evaluation: it computes alone, and
/// [`map_over_ranks`] divides its items among the processes.
pub fn with_divided_work<T>(run: impl FnOnce() -> T) -> T {
    let _restore = Restore::after_setting(&DIVIDES_WORK, process_group());
    with_process_group(None, run)
}

/// A group that a variable of this thread holds.
type Held = LocalKey<RefCell<Option<Rc<dyn ProcessGroup>>>>;

/// Sets a variable of this thread back when it is dropped, also after a panic.
struct Restore {
    variable: &'static Held,
    before: Option<Rc<dyn ProcessGroup>>,
}

impl Restore {
    fn after_setting(variable: &'static Held, group: Option<Rc<dyn ProcessGroup>>) -> Self {
        Self { variable, before: variable.replace(group) }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.variable.set(self.before.take());
    }
}

/// Runs a function in rank 0 first and then in the others, which find in a cache what rank 0 wrote there.
///
/// # Errors
/// When a process ended or does not come.
pub fn rank_zero_first<T, E: From<Error>>(run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let Some(group) = process_group() else { return run() };
    if group.rank() == 0 {
        let value = run()?;
        group.barrier()?;
        return Ok(value);
    }
    group.barrier()?;
    run()
}

/// A number, summed over the processes.
///
/// # Errors
/// When a process ended or does not come; so in all functions here.
pub fn sum_number(value: f64) -> Result<f64> {
    match process_group() {
        None => Ok(value),
        Some(group) => group.all_reduce(&Tensor::from_slice(&[value])?)?.to_f64(),
    }
}

/// The sum of the processes' tensors, which have the same shape. The gradient of the own one flows back, multiplied by
/// the number of processes, for losses that all processes compute alike.
pub fn sum_over_ranks(tensor: &Tensor) -> Result<Tensor> {
    let Some(group) = process_group() else { return Ok(tensor.clone()) };
    let own = tensor.detach()?;
    let others = group.all_reduce(&own)?.sub(&own)?;
    tensor.scale_gradient(group.world_size() as f64)?.add(&others)
}

/// The mean over the rows of all processes, `[rows, …]` → `[…]`; a process may have no rows.
pub fn mean_over_rows(rows: &Tensor) -> Result<Tensor> {
    if process_group().is_none() {
        return rows.mean_dim(&[0], false);
    }
    let count = sum_number(rows.size(0)? as f64)?;
    sum_over_ranks(&rows.sum_dim(&[0], false)?)?.mul_scalar(1.0 / count)
}

/// The mean over the `count` values of all processes, from the own mean of the own `count`.
pub fn mean_by_count(mean: &Tensor, count: f64) -> Result<Tensor> {
    if process_group().is_none() {
        return Ok(mean.clone());
    }
    let all = sum_number(count)?;
    // The mean of nothing is not a number.
    let own = if count > 0.0 { mean.mul_scalar(count / all)? } else { mean.zeros_like()? };
    sum_over_ranks(&own)
}

/// The rows of all processes, those of rank 0 first; the gradient as of [`sum_over_ranks`].
pub fn gather_rows(rows: &Tensor) -> Result<Tensor> {
    match process_group() {
        None => Ok(rows.clone()),
        Some(group) => Ok(group.gather_rows(rows)?.0),
    }
}

/// The processes' values, in their order, sent as JSON.
pub fn gather_values<T: Serialize + DeserializeOwned>(group: &dyn ProcessGroup, value: &T) -> Result<Vec<T>> {
    let invalid =
        |e: serde_json::Error| Error::Other(format!("a message of another process cannot be read: {e}").into());
    let texts = group.gather_text(&serde_json::to_string(value).map_err(invalid)?)?;
    texts.iter().map(|text| serde_json::from_str(text).map_err(invalid)).collect()
}

/// Divides items among the processes, each of which gets the results of all, in the order of the items: an evaluation
/// takes as long as one process needs for its part. The work computes alone.
///
/// # Errors
/// When the work fails, the processes have other numbers of items, one ended or does not come.
pub fn map_over_ranks<I, T: Serialize + DeserializeOwned, E: From<Error>>(
    items: impl IntoIterator<Item = I>,
    mut work: impl FnMut(I) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let Some(group) = process_group().or_else(|| DIVIDES_WORK.with_borrow(Clone::clone)) else {
        return items.into_iter().map(work).collect();
    };
    let (rank, world_size) = (group.rank(), group.world_size());
    let items: Vec<I> = items.into_iter().collect();
    let count = items.len();
    let own = items.into_iter().enumerate().filter(|(number, _)| number % world_size == rank);
    let own: Vec<T> = {
        let _restore = Restore::after_setting(&DIVIDES_WORK, None);
        with_process_group(None, || own.map(|(_, item)| work(item)).collect::<Result<_, E>>())?
    };
    let mut parts = Vec::with_capacity(world_size);
    for (other, (found, part)) in gather_values(group.as_ref(), &(count, own))?.into_iter().enumerate() {
        if found != count {
            let text = format!("rank {other} divides {found} items, rank {rank} {count}; all have to have the same");
            return Err(Error::Other(text.into()).into());
        }
        parts.push(part.into_iter());
    }
    Ok((0..).map_while(|number| parts[number % world_size].next()).collect())
}

/// Runs a function in rank 0 alone, whose value all processes get; it computes alone.
///
/// # Errors
/// As [`map_over_ranks`].
pub fn on_rank_zero<T: Serialize + DeserializeOwned, E: From<Error>>(
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let mut values = map_over_ranks([run], |run| run())?;
    values.pop().ok_or_else(|| Error::Other("no process has run a function of rank 0".into()).into())
}

/// A tensor among the results of [`map_over_ranks`]: processes send each other its values, bit for bit up to float32.
#[derive(Debug, Clone)]
pub struct SentTensor(pub Tensor);

/// What is sent of a tensor.
#[derive(Serialize, Deserialize)]
struct TensorMessage {
    shape: Vec<i64>,
    dtype: DType,
    bits: Vec<u32>,
}

impl Serialize for SentTensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = || -> Result<TensorMessage> {
            let bits = self.0.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect();
            Ok(TensorMessage { shape: self.0.shape(), dtype: self.0.dtype()?, bits })
        };
        message().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SentTensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let TensorMessage { shape, dtype, bits } = TensorMessage::deserialize(deserializer)?;
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let tensor = Tensor::from_slice(&values).and_then(|t| t.reshape(&shape)?.to_dtype(dtype));
        tensor.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Standard normal numbers of this shape, whose first dimension is that of the own rows: each row gets those that it
/// would get in one process that has the rows of all.
pub fn randn_rows(shape: &[i64], device: Device) -> Result<Tensor> {
    random_rows(shape, device, |shape| Tensor::randn(shape, DType::F32, device))
}

/// Uniform numbers in [0, 1); otherwise as [`randn_rows`].
pub fn rand_rows(shape: &[i64], device: Device) -> Result<Tensor> {
    random_rows(shape, device, |shape| Tensor::rand(shape, DType::F32, device))
}

/// Numbers of all rows, drawn by rank 0.
fn random_rows(shape: &[i64], device: Device, draw: impl Fn(&[i64]) -> Result<Tensor>) -> Result<Tensor> {
    let (Some(group), Some(own)) = (process_group(), shape.first().copied()) else {
        return draw_once(draw(shape)?);
    };
    let (_, counts) = group.gather_rows(&Tensor::zeros(&[own, 1], DType::F32, Device::Cpu)?)?;
    let mut all = shape.to_vec();
    all[0] = counts.iter().sum::<usize>() as i64;
    let drawn = if group.rank() == 0 { draw(&all)? } else { Tensor::zeros(&all, DType::F32, device)? };
    let first = counts[..group.rank()].iter().sum::<usize>() as i64;
    group.broadcast(&drawn)?.narrow(0, first, own)
}

/// A number in [0, 1) that all processes share, a function of rank 0's random state.
pub fn shared_random() -> Result<f64> {
    let drawn = Tensor::rand(&[1], DType::F64, Device::Cpu)?;
    match process_group() {
        None => draw_once(drawn)?.to_f64(),
        Some(group) => group.broadcast(&drawn)?.to_f64(),
    }
}

/// What rank 0 drew, where each process has the rows of all; else what was drawn.
fn draw_once(drawn: Tensor) -> Result<Tensor> {
    match SHARED_DRAWS.with_borrow(Clone::clone) {
        Some(group) => group.broadcast(&drawn),
        None => Ok(drawn),
    }
}
