//! Named tensors in `PyTorch`'s files: zip archives since version 1.6, a sequence of pickles before.

use super::{
    super::{location::Location, mmap::MappedFile},
    machine::Machine,
    object::max_objects,
    value::{TensorView, Value},
};
use crate::{Error, Result};
use std::{collections::BTreeMap, io::Cursor, path::Path, sync::Arc};

/// Names, shapes and positions of all tensors in a `.bin`, `.pt` or `.pth` file.
///
/// # Errors
/// If the file is incomplete, asks for anything but tensors, or holds none.
pub(crate) fn read_tensors(file: &Path, map: &Arc<MappedFile>) -> Result<BTreeMap<String, Location>> {
    let invalid = |reason: String| Error::file(file, reason);
    let (root, storages) = if map.starts_with(b"PK") { read_zip(map) } else { read_legacy(map) }.map_err(invalid)?;
    let mut views = Vec::new();
    let mut left = max_objects(map.len());
    flatten("", &unwrap_state(root), &mut views, 0, &mut left).map_err(invalid)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let (start, bytes) =
            *storages.get(&*view.key).ok_or_else(|| invalid(format!("{name}: its storage {} is missing", view.key)))?;
        tensors.insert(name.clone(), locate(map, &view, start, bytes).map_err(|e| invalid(format!("{name}: {e}")))?);
    }
    if tensors.is_empty() {
        return Err(invalid("holds no named tensors, expected a state_dict".into()));
    }
    Ok(tensors)
}

/// The state dict; training scripts often wrap it as `{"state_dict": …, "epoch": …}`.
fn unwrap_state(root: Value) -> Value {
    if let Value::Dict(items) = &root {
        for wanted in ["state_dict", "model_state_dict", "model"] {
            for (key, value) in items.get().iter() {
                if matches!((key, value), (Value::Text(k), Value::Dict(_)) if &**k == wanted) {
                    return value.clone();
                }
            }
        }
    }
    root
}

fn flatten(
    prefix: &str,
    value: &Value,
    out: &mut Vec<(String, TensorView)>,
    depth: usize,
    left: &mut usize,
) -> Result<(), String> {
    if depth > 64 {
        return Err("dictionaries nested deeper than 64".into());
    }
    *left = left.checked_sub(1).ok_or("its dictionaries expand to far more entries than the file has bytes")?;
    match value {
        Value::Tensor(view) => out.push((prefix.to_owned(), (**view).clone())),
        Value::Dict(items) => {
            for (key, value) in items.get().iter() {
                let key = match key {
                    Value::Text(text) => text.to_string(),
                    Value::Int(number) => number.to_string(),
                    _ => continue,
                };
                let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&name, value, out, depth + 1, left)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Maximum number of elements of a tensor that repeats those of its storage.
const MAX_EXPANDED: usize = 1 << 26;

fn locate(map: &Arc<MappedFile>, view: &TensorView, start: usize, bytes: usize) -> Result<Location, String> {
    let size = view.dtype.size();
    let mut contiguous = Vec::new();
    let mut stride = 1i64;
    for length in view.shape.iter().rev() {
        contiguous.insert(0, stride);
        stride = stride.checked_mul((*length).max(1)).ok_or("its sizes overflow")?;
    }
    let empty = view.shape.contains(&0);
    // An expanded tensor has more elements than its storage.
    if usize::try_from(stride).is_ok_and(|elements| elements > view.count.max(MAX_EXPANDED)) {
        return Err(format!("has {stride} elements in a storage of {}, expected at most {MAX_EXPANDED}", view.count));
    }
    // The last element of the view must lie inside its storage.
    let mut last = 0i64;
    for (length, stride) in view.shape.iter().zip(&view.strides) {
        if *length < 0 || *stride < 0 {
            return Err("a negative size".into());
        }
        last =
            (length - 1).max(0).checked_mul(*stride).and_then(|v| v.checked_add(last)).ok_or("its sizes overflow")?;
    }
    let extent = if empty { 0 } else { usize::try_from(last).map_err(|e| e.to_string())? + 1 };
    let end = view.offset.checked_add(extent).ok_or("its sizes overflow")?;
    if end > view.count || end.checked_mul(size).is_none_or(|b| b > bytes) {
        return Err(format!("reaches element {end} of a storage of {} elements ({bytes} bytes)", view.count));
    }
    // A dimension of one may have any stride.
    let strided = view.shape.iter().zip(&view.strides).zip(&contiguous).any(|((n, s), o)| *n > 1 && s != o);
    Ok(Location {
        file: map.clone(),
        start: start + view.offset * size,
        bytes: extent * size,
        shape: view.shape.clone(),
        strides: strided.then(|| view.strides.clone()),
        dtype: view.dtype,
    })
}

/// Start and length of each storage by its key.
type Storages = BTreeMap<String, (usize, usize)>;

fn read_zip(map: &[u8]) -> Result<(Value, Storages), String> {
    let invalid = |e: zip::result::ZipError| format!("not a complete PyTorch file ({e}); download it again");
    let mut archive = zip::ZipArchive::new(Cursor::new(map)).map_err(invalid)?;
    let (mut program, mut storages) = (None, Storages::new());
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(invalid)?;
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(format!("{} is compressed, which PyTorch does not do", entry.name()));
        }
        let start = usize::try_from(entry.data_start()).map_err(|e| e.to_string())?;
        let length = usize::try_from(entry.size()).map_err(|e| e.to_string())?;
        if start.checked_add(length).is_none_or(|end| end > map.len()) {
            return Err(format!("{} reaches past the end of the file; download it again", entry.name()));
        }
        let name = entry.name().to_owned();
        if name.ends_with("/data.pkl") || name == "data.pkl" {
            program = Some((start, length));
        } else if let Some((_, key)) = name.split_once("data/") {
            storages.insert(key.to_owned(), (start, length));
        }
    }
    let (start, length) = program.ok_or("a zip archive without data.pkl, so not a PyTorch file")?;
    let mut machine = Machine::new(&map[start..start + length]);
    Ok((machine.run()?, storages))
}

fn read_legacy(map: &[u8]) -> Result<(Value, Storages), String> {
    let mut machine = Machine::new(map);
    // Magic number, protocol version, system information, then the object and the order of its storages.
    let magic = machine.run()?;
    if !matches!(magic, Value::Int(_) | Value::LongInt) {
        return Ok((magic, Storages::new()));
    }
    machine.run()?;
    machine.run()?;
    let root = machine.run()?;
    let declared = machine.storages.clone();
    let Value::List(keys) = machine.run()? else {
        return Err("a legacy PyTorch file without its list of storages".into());
    };
    let mut at = machine.at;
    let mut storages = Storages::new();
    for key in keys.get().iter() {
        let key = &machine.text_of(key).ok_or("a storage key that is not text")?;
        let (dtype, count) = declared.get(key).ok_or_else(|| format!("storage {key} is listed but not used"))?;
        let head: [u8; 8] =
            map.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or("truncated; download it again")?;
        if u64::from_le_bytes(head) != *count as u64 {
            return Err(format!(
                "storage {key} has {} values according to the file and {count} according to its tensors",
                u64::from_le_bytes(head)
            ));
        }
        let bytes = count.checked_mul(dtype.size()).ok_or("its size overflows")?;
        at += 8;
        if at.checked_add(bytes).is_none_or(|end| end > map.len()) {
            return Err("truncated; download it again".into());
        }
        storages.insert(key.to_string(), (at, bytes));
        at += bytes;
    }
    Ok((root, storages))
}
