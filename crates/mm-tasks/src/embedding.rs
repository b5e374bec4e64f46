//! Whole data sets become vectors: values are decoded ahead of the model, work that was interrupted goes on where it stopped, values
//! that are broken are holes that can be tried again, and memory does not grow with the number of rows.

use crate::{Error, Result};
use mm_core::{Modality, Pooling, ProcessContext, Processor, Source, Tensor};
use mm_data::Manifest;
use mm_repr::Pretrained;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, FloatType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// What makes vectors of values: a pretrained model, or a run.
pub trait Embedder {
    /// The modalities that it takes.
    fn modalities(&self) -> Vec<Modality>;
    /// What makes a sample of a value.
    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>>;
    /// Vectors `[samples, width]`.
    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pool: Option<Pooling>) -> Result<Tensor>;
    /// Changes whenever the vectors would.
    fn fingerprint(&self) -> Result<String>;

    /// Vectors `[sources, width]` of raw values.
    fn embed(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        let processor = self.processor(modality)?;
        let samples = sources
            .par_iter()
            .map(|s| processor.process(s, &mut ProcessContext::eval()))
            .collect::<Result<Vec<_>, _>>()?;
        self.embed_samples(modality, &samples, None)
    }
}

/// Hash of the best weights of a run folder.
pub(crate) fn run_fingerprint(run: Option<&Path>) -> Result<String> {
    let run = run.ok_or_else(|| Error::invalid("model", "one that is not trained", "one loaded from a run folder"))?;
    let weights = mm_train::Run::checkpoint_path(run, "best");
    let mut hasher = blake3::Hasher::new();
    File::open(&weights).and_then(|file| hasher.update_reader(file).map(drop)).map_err(at(&weights))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Embedder for Pretrained {
    fn modalities(&self) -> Vec<Modality> {
        Pretrained::modalities(self)
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(Arc::clone(&self.tower(modality)?.processor))
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], pool: Option<Pooling>) -> Result<Tensor> {
        Ok(Pretrained::embed_samples(self, modality, samples, pool)?)
    }

    fn fingerprint(&self) -> Result<String> {
        Ok(self.fingerprint.clone())
    }
}

/// In which form vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// numpy's: one array `[values, width]` f32.
    Npy,
    /// A table: id, row, modality, value, error, embedding.
    Parquet,
    /// One tensor `[values, width]` f32 a modality.
    Safetensors,
}

impl Format {
    /// By the ending of a file's name.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("parquet") => Ok(Self::Parquet),
            Some("safetensors") => Ok(Self::Safetensors),
            other => Err(Error::Config(format!(
                "{}: found the ending `{}`, wanted .npy, .parquet or .safetensors",
                path.display(),
                other.unwrap_or_default()
            ))),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The modalities, in this order; those that both the model takes and the data set has where none is named.
    pub modalities: Vec<Modality>,
    /// How positions become one vector; as the model's folder says when absent.
    pub pool: Option<Pooling>,
    /// Whether vectors are brought to unit length.
    pub normalize: bool,
    /// Whether the first broken value ends the work instead of becoming a hole.
    pub strict: bool,
}

/// One value of the data set.
struct Entry {
    row: usize,
    value: usize,
    modality: Modality,
}

/// What has been done, kept beside the vectors until all are there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Of the model, the data set and the options: work goes on only where it was begun.
    fingerprint: String,
    width: usize,
    /// So many entries were tried.
    done: usize,
    /// Entry → why it is a hole.
    holes: BTreeMap<usize, String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Vectors written, holes not counted.
    pub vectors: usize,
    /// Of these, made by an earlier call.
    pub kept: usize,
    /// Width of a vector.
    pub width: usize,
    /// Id, modality and reason of each hole.
    pub holes: Vec<(String, Modality, String)>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |e| Error::File { path: path.clone(), reason: e.to_string() }
}

/// How many values are decoded together: what they take up in memory, not their number, should be alike.
fn together(modality: &Modality) -> usize {
    match modality.name() {
        "text" => 2048,
        "image" => 64,
        "video" => 8,
        _ => 64,
    }
}

/// Embeds every value of a data set into `out`; `tell(done, all)` after each piece. Called again after an interruption or with holes
/// left, it does only what is missing. `stop` ends it after the piece at hand.
pub fn embed_all(
    model: &dyn Embedder,
    manifest: &Manifest,
    out: &Path,
    options: &Options,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Summary> {
    let format = Format::of(out)?;
    let modalities = choose(model, manifest, format, options)?;
    let entries = entries(manifest, &modalities);
    let work = PathBuf::from(format!("{}.part", out.display()));
    std::fs::create_dir_all(&work).map_err(at(&work))?;
    let lock = File::options().create(true).truncate(false).write(true).open(work.join("lock")).map_err(at(&work))?;
    if lock.try_lock().is_err() {
        return Err(Error::Config(format!("{}: another process is at work there", work.display())));
    }
    let state_file = work.join("state.json");
    let fingerprint = fingerprint(model, manifest, &modalities, options)?;
    let mut state = match std::fs::read(&state_file) {
        Ok(text) => {
            let state: State = serde_json::from_slice(&text).map_err(|e| Error::File {
                path: state_file.clone(),
                reason: format!("not readable: {e}; delete {}", work.display()),
            })?;
            if state.fingerprint != fingerprint {
                return Err(Error::Config(format!(
                    "{} holds work of another model, data set or other options; delete it to begin anew, or choose another --out",
                    work.display()
                )));
            }
            state
        }
        Err(_) => State { fingerprint, ..State::default() },
    };
    let kept = state.done - state.holes.len();
    // What is missing: the holes of before, then the rest.
    let missing: Vec<usize> = state.holes.keys().copied().chain(state.done..entries.len()).collect();
    let vectors = work.join("vectors.f32");
    let mut file =
        File::options().create(true).truncate(false).read(true).write(true).open(&vectors).map_err(at(&vectors))?;
    let stopped = run(model, manifest, &entries, &missing, options, stop, &mut |piece, rows| {
        for (entry, vector) in piece.iter().zip(rows) {
            match vector {
                Ok(vector) => {
                    let width = vector.len();
                    if state.width != 0 && state.width != width {
                        let id = &manifest.rows[entries[*entry].row].id;
                        let modality = &entries[*entry].modality;
                        return Err(Error::Config(format!(
                            "{id}: {modality}: found a vector of {width} numbers, wanted {} as before it; choose one with --modality",
                            state.width
                        )));
                    }
                    state.width = width;
                    file.seek(SeekFrom::Start((entry * width * 4) as u64)).map_err(at(&vectors))?;
                    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                    file.write_all(&bytes).map_err(at(&vectors))?;
                    state.holes.remove(entry);
                }
                Err(reason) => {
                    state.holes.insert(*entry, reason);
                }
            }
            state.done = state.done.max(entry + 1);
        }
        // First the numbers, then the word that they are there.
        file.sync_data().map_err(at(&vectors))?;
        mm_core::checkpoint::write_atomic(&state_file, &serde_json::to_vec(&state).unwrap_or_default())?;
        tell(state.done, entries.len());
        Ok(())
    })?;
    let holes: Vec<(String, Modality, String)> = state
        .holes
        .iter()
        .map(|(n, reason)| (manifest.rows[entries[*n].row].id.clone(), entries[*n].modality.clone(), reason.clone()))
        .collect();
    let summary = Summary { vectors: state.done - holes.len(), kept, width: state.width, holes, stopped };
    if stopped {
        return Ok(summary);
    }
    if summary.vectors == 0 {
        let why = summary.holes.first().map(|(id, _, why)| format!(": {id}: {why}")).unwrap_or_default();
        return Err(Error::Config(format!("of {} values none could be embedded{why}", entries.len())));
    }
    let table = Table { manifest, entries: &entries, state: &state, vectors: &vectors };
    let fresh = PathBuf::from(format!("{}.new", out.display()));
    match format {
        Format::Npy => table.npy(&fresh)?,
        Format::Safetensors => table.safetensors(&fresh, &modalities)?,
        Format::Parquet => table.parquet(&fresh)?,
    }
    std::fs::rename(&fresh, out).map_err(at(out))?;
    if format != Format::Parquet {
        table.index(&out.with_extension("rows.jsonl"))?;
    }
    if state.holes.is_empty() {
        drop(lock);
        std::fs::remove_dir_all(&work).map_err(at(&work))?;
    }
    Ok(summary)
}

fn choose(model: &dyn Embedder, manifest: &Manifest, format: Format, options: &Options) -> Result<Vec<Modality>> {
    let (takes, has) = (model.modalities(), manifest.modalities());
    let named =
        |list: &mut dyn Iterator<Item = &Modality>| list.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let chosen: Vec<Modality> = if options.modalities.is_empty() {
        takes.iter().filter(|m| has.contains(m)).cloned().collect()
    } else {
        options.modalities.clone()
    };
    if let Some(lost) = chosen.iter().find(|m| !has.contains(m) || !takes.contains(m)) {
        return Err(Error::Config(format!(
            "{lost}: the model takes {}, the data set has {}",
            named(&mut takes.iter()),
            named(&mut has.iter())
        )));
    }
    if chosen.is_empty() {
        return Err(Error::Config(format!(
            "the model takes {}, the data set has {}: nothing to embed (`mm inspect` shows which column was taken for what)",
            named(&mut takes.iter()),
            named(&mut has.iter())
        )));
    }
    if format == Format::Npy && chosen.len() > 1 {
        return Err(Error::Config(format!(
            "one .npy holds one modality, and both have {}; choose with --modality, or write .safetensors or .parquet",
            named(&mut chosen.iter())
        )));
    }
    Ok(chosen)
}

fn entries(manifest: &Manifest, modalities: &[Modality]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for modality in modalities {
        for (row, sample) in manifest.rows.iter().enumerate() {
            let count = sample.values.get(modality).map_or(0, Vec::len);
            entries.extend((0..count).map(|value| Entry { row, value, modality: modality.clone() }));
        }
    }
    entries
}

fn fingerprint(
    model: &dyn Embedder,
    manifest: &Manifest,
    modalities: &[Modality],
    options: &Options,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(&manifest.path).map_err(at(&manifest.path))?;
    hasher.update_reader(file).map_err(at(&manifest.path))?;
    let columns = &manifest.columns;
    hasher.update(
        format!("{} {modalities:?} {columns:?} {:?} {}", model.fingerprint()?, options.pool, options.normalize)
            .as_bytes(),
    );
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

type Made = Vec<std::result::Result<Vec<f32>, String>>;

/// Decodes in a thread of its own (and rayon's) one piece ahead of the model. True when it was stopped.
fn run(
    model: &dyn Embedder,
    manifest: &Manifest,
    entries: &[Entry],
    missing: &[usize],
    options: &Options,
    stop: &AtomicBool,
    keep: &mut dyn FnMut(&[usize], Made) -> Result<()>,
) -> Result<bool> {
    // Pieces of one modality each.
    let mut pieces: Vec<&[usize]> = Vec::new();
    let mut from = 0;
    while from < missing.len() {
        let modality = &entries[missing[from]].modality;
        let same = missing[from..].iter().take(together(modality)).take_while(|n| entries[**n].modality == *modality);
        let count = same.count();
        pieces.push(&missing[from..from + count]);
        from += count;
    }
    let mut processors = BTreeMap::new();
    for modality in model.modalities() {
        processors.insert(modality.clone(), model.processor(&modality)?);
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let (todo, processors, ended) = (&pieces, &processors, &ended);
        scope.spawn(move || {
            for piece in todo {
                let make = |n: &usize| {
                    let entry = &entries[*n];
                    let source: &Source = &manifest.rows[entry.row].values[&entry.modality][entry.value];
                    processors[&entry.modality].process(source, &mut ProcessContext::eval()).map_err(|e| e.to_string())
                };
                let samples: Vec<std::result::Result<Tensor, String>> = piece.par_iter().map(make).collect();
                if ended.load(Ordering::Relaxed) || sender.send(samples).is_err() {
                    return;
                }
            }
        });
        let mut work = || -> Result<bool> {
            for piece in &pieces {
                if stop.load(Ordering::Relaxed) {
                    return Ok(true);
                }
                let gone = |_| Error::Config("the decoding thread ended before its work was done".into());
                let samples = receiver.recv().map_err(gone)?;
                let modality = &entries[piece[0]].modality;
                let good: Vec<Tensor> = samples.iter().filter_map(|s| s.as_ref().ok().cloned()).collect();
                let mut made = Vec::new();
                if !good.is_empty() {
                    let rows = model.embed_samples(modality, &good, options.pool)?;
                    let rows = if options.normalize { rows.normalize()? } else { rows };
                    let width = rows.size(-1)? as usize;
                    let numbers = rows.to_vec::<f32>()?;
                    made = numbers.chunks(width.max(1)).map(<[f32]>::to_vec).collect();
                }
                let mut made = made.into_iter();
                let rows: Made = samples
                    .into_iter()
                    .map(|s| s.and_then(|_| made.next().ok_or_else(|| "the model gave no vector".to_owned())))
                    .collect();
                if let (true, Some((n, reason))) =
                    (options.strict, piece.iter().zip(&rows).find_map(|(n, r)| Some((n, r.as_ref().err()?))))
                {
                    let id = &manifest.rows[entries[*n].row].id;
                    return Err(Error::Config(format!("{id}: {reason}")));
                }
                keep(piece, rows)?;
            }
            Ok(false)
        };
        let result = work();
        // The decoder may be waiting for someone to take what it has made.
        ended.store(true, Ordering::Relaxed);
        drop(receiver);
        result
    })
}

/// Rows of a group of the Parquet file.
const GROUP: usize = 8192;

/// Everything that the files at the end are made of.
struct Table<'a> {
    manifest: &'a Manifest,
    entries: &'a [Entry],
    state: &'a State,
    vectors: &'a Path,
}

impl Table<'_> {
    /// Each entry's bytes in order, NaN for holes, read piece by piece.
    fn bytes(&self, range: std::ops::Range<usize>, keep: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> {
        let size = self.state.width * 4;
        let nan: Vec<u8> = f32::NAN.to_le_bytes().repeat(self.state.width);
        let mut reader = BufReader::with_capacity(1 << 20, File::open(self.vectors).map_err(at(self.vectors))?);
        reader.seek(SeekFrom::Start((range.start * size) as u64)).map_err(at(self.vectors))?;
        let mut row = vec![0u8; size];
        for entry in range {
            if self.state.holes.contains_key(&entry) {
                reader.seek_relative(size as i64).map_err(at(self.vectors))?;
                keep(&nan).map_err(at(self.vectors))?;
            } else {
                reader.read_exact(&mut row).map_err(at(self.vectors))?;
                keep(&row).map_err(at(self.vectors))?;
            }
        }
        Ok(())
    }

    fn npy(&self, out: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(out).map_err(at(out))?);
        let mut write = |bytes: &[u8]| file.write_all(bytes);
        write(&mm_data::npy_header("<f4", &[self.entries.len(), self.state.width])).map_err(at(out))?;
        self.bytes(0..self.entries.len(), &mut write)?;
        file.flush().map_err(at(out))
    }

    fn safetensors(&self, out: &Path, modalities: &[Modality]) -> Result<()> {
        let mut head = serde_json::Map::new();
        head.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut from = 0;
        for modality in modalities {
            let count = self.entries.iter().filter(|e| e.modality == *modality).count();
            let size = count * self.state.width * 4;
            let about =
                json!({"dtype": "F32", "shape": [count, self.state.width], "data_offsets": [from, from + size]});
            head.insert(modality.to_string(), about);
            from += size;
        }
        let mut head = serde_json::Value::from(head).to_string();
        while head.len() % 8 != 0 {
            head.push(' ');
        }
        let mut file = BufWriter::new(File::create(out).map_err(at(out))?);
        file.write_all(&(head.len() as u64).to_le_bytes()).map_err(at(out))?;
        file.write_all(head.as_bytes()).map_err(at(out))?;
        self.bytes(0..self.entries.len(), &mut |bytes| file.write_all(bytes))?;
        file.flush().map_err(at(out))
    }

    fn parquet(&self, out: &Path) -> Result<()> {
        let bad = |e: parquet::errors::ParquetError| Error::File { path: out.to_owned(), reason: e.to_string() };
        let schema = parse_message_type(
            "message embeddings {
                required binary id (UTF8); required int64 row; required binary modality (UTF8); required int64 value;
                optional binary error (UTF8);
                optional group embedding (LIST) { repeated group list { required float element; } }
            }",
        )
        .map_err(bad)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = File::create(out).map_err(at(out))?;
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).map_err(bad)?;
        for start in (0..self.entries.len()).step_by(GROUP) {
            let range = start..(start + GROUP).min(self.entries.len());
            let part = &self.entries[range.clone()];
            let text = |f: &dyn Fn(&Entry) -> String| {
                part.iter().map(|e| ByteArray::from(f(e).into_bytes())).collect::<Vec<_>>()
            };
            let mut group = writer.next_row_group().map_err(bad)?;
            let ids = text(&|e| self.manifest.rows[e.row].id.clone());
            let kinds = text(&|e| e.modality.to_string());
            let rows: Vec<i64> = part.iter().map(|e| self.manifest.rows[e.row].number as i64).collect();
            let values: Vec<i64> = part.iter().map(|e| e.value as i64).collect();
            let errors: Vec<(i16, Option<&String>)> =
                range.clone().map(|n| self.state.holes.get(&n)).map(|h| (i16::from(h.is_some()), h)).collect();
            let told: Vec<ByteArray> =
                errors.iter().filter_map(|(_, h)| h.map(|h| ByteArray::from(h.clone().into_bytes()))).collect();
            let (mut numbers, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
            let mut entry = start;
            self.bytes(range, &mut |bytes| {
                if self.state.holes.contains_key(&entry) {
                    defined.push(0);
                    repeated.push(0);
                } else {
                    let row = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    numbers.extend(row);
                    defined.resize(defined.len() + self.state.width, 2i16);
                    repeated.push(0);
                    repeated.resize(repeated.len() + self.state.width - 1, 1i16);
                }
                entry += 1;
                Ok(())
            })?;
            let mut number = 0;
            while let Some(mut column) = group.next_column().map_err(bad)? {
                match number {
                    0 => drop(column.typed::<ByteArrayType>().write_batch(&ids, None, None).map_err(bad)?),
                    1 => drop(column.typed::<Int64Type>().write_batch(&rows, None, None).map_err(bad)?),
                    2 => drop(column.typed::<ByteArrayType>().write_batch(&kinds, None, None).map_err(bad)?),
                    3 => drop(column.typed::<Int64Type>().write_batch(&values, None, None).map_err(bad)?),
                    4 => {
                        let levels: Vec<i16> = errors.iter().map(|e| e.0).collect();
                        column.typed::<ByteArrayType>().write_batch(&told, Some(&levels), None).map_err(bad)?;
                    }
                    _ => {
                        column
                            .typed::<FloatType>()
                            .write_batch(&numbers, Some(&defined), Some(&repeated))
                            .map_err(bad)?;
                    }
                }
                column.close().map_err(bad)?;
                number += 1;
            }
            group.close().map_err(bad)?;
        }
        writer.close().map_err(bad)?;
        Ok(())
    }

    /// Which vector is of which row, beside the forms that hold numbers alone.
    fn index(&self, out: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(out).map_err(at(out))?);
        for (number, entry) in self.entries.iter().enumerate() {
            let row = &self.manifest.rows[entry.row];
            let mut line = json!({"id": row.id, "row": row.number, "modality": entry.modality, "value": entry.value});
            if let Some(reason) = self.state.holes.get(&number) {
                line["error"] = json!(reason);
            }
            writeln!(file, "{line}").map_err(at(out))?;
        }
        file.flush().map_err(at(out))
    }
}
